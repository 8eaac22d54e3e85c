"""Clients of others, unmodified, against a running server: ``python -m benchmarks.clients``."""
