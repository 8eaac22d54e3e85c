"""The service: serves the variants over gRPC, with dynamic batching and supervised workers."""

from importlib import metadata
from importlib.util import find_spec


def version() -> str:
    """Version of the installed distribution; "source" where it runs from a checkout that is not installed."""
    try:
        return metadata.version("rootserve")
    except metadata.PackageNotFoundError:
        return "source"


def core_is() -> str:
    """What the scheduler is here: "compiled", or the "python" that it is made from (docs/adr/0024)."""
    spec = find_spec("rootserve.server.core.scheduler")
    return "python" if spec is None or str(spec.origin).endswith(".py") else "compiled"
