"""The service: serves the variants over gRPC, with dynamic batching and supervised workers."""

from importlib import metadata


def version() -> str:
    """Version of the installed distribution; "source" where it runs from a checkout that is not installed."""
    try:
        return metadata.version("rootserve")
    except metadata.PackageNotFoundError:
        return "source"
