"""The version of the installed client."""

from importlib.metadata import version


def client_version() -> str:
    """Version of the installed `rootserve` distribution, such as "0.1.0"."""
    return version("rootserve")
