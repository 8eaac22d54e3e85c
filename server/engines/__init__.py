"""How a model runs on a device. Imported by worker processes only."""
