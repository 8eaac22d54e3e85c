"""What can be in the way of work on a cluster."""


class ClusterError(ValueError):
    """The work cannot be done as asked; one line that says what came and what was expected."""


class NoRayError(ClusterError):
    """Ray is not installed here."""


class UnreachableError(ClusterError):
    """No cluster answers at the address, or this machine is no part of it."""


class VersionsError(ClusterError):
    """Nodes have other versions than this machine; the first one, and both versions, are named."""


class ClusterLostError(ClusterError):
    """The cluster went away, or what is left of it cannot do the work. What was done is kept."""
