"""The service: serves the variants over gRPC, with dynamic batching and supervised workers."""

from importlib import metadata


def version() -> str:
    """Version of the installed distribution."""
    return metadata.version("rootserve")
