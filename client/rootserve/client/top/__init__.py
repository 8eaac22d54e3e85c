"""A live view of a server's own metrics: read, compared over time, shown."""
