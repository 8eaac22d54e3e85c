"""Which method belongs to which group, and whether a call may go on."""

from __future__ import annotations

from collections.abc import Iterable

from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.security.tokens import Group, TokenStore

_HEALTH = (
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/List",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "inference.GRPCInferenceService/ServerLive",
    "inference.GRPCInferenceService/ServerReady",
    "inference.GRPCInferenceService/ModelReady",
)
_INFERENCE = (
    "inference.GRPCInferenceService/ServerMetadata",
    "inference.GRPCInferenceService/ModelMetadata",
    "inference.GRPCInferenceService/ModelConfig",
    "inference.GRPCInferenceService/ModelStatistics",
    "inference.GRPCInferenceService/RepositoryIndex",
    "inference.GRPCInferenceService/ModelInfer",
    "inference.GRPCInferenceService/ModelStreamInfer",
    "inference.GRPCInferenceService/SystemSharedMemoryRegister",
    "inference.GRPCInferenceService/SystemSharedMemoryStatus",
    "inference.GRPCInferenceService/SystemSharedMemoryUnregister",
    "inference.GRPCInferenceService/CudaSharedMemoryStatus",
    "inference.GRPCInferenceService/CudaSharedMemoryUnregister",
    "rootserve.v1.CatalogService/ListModels",
    "rootserve.v1.CatalogService/GetServerInfo",
    "rootserve.v1.ExplainService/GetLatencyTable",
)
_ADMIN = (
    "inference.GRPCInferenceService/RepositoryModelLoad",
    "inference.GRPCInferenceService/RepositoryModelUnload",
    # It tells of what other callers sent.
    "rootserve.v1.ExplainService/Explain",
)
_SERVICES = {"/rootserve.v1.AnalysisService": Group.ANALYSIS}
"""Services all of whose methods belong to one group."""

_METHODS = {
    f"/{method}": group
    for group, methods in (
        (Group.HEALTH, _HEALTH),
        (Group.INFERENCE, _INFERENCE),
        (Group.ADMIN, _ADMIN),
    )
    for method in methods
}


def group_of(method: str) -> Group:
    """The group of ``/package.Service/Method``; a method nobody thought of is for admins."""
    if method in _METHODS:
        return _METHODS[method]
    return _SERVICES.get(method.rpartition("/")[0], Group.ADMIN)


def bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The token of ``authorization: Bearer TOKEN``; None if there is not exactly one."""
    values = [value for key, value in metadata if key == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str):
        return None
    scheme, _, token = values[0].strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


class Authorizer:
    """Lets calls through whose token has the group of their method."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    def check(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> str:
        """Let a call through; gives the name of its token, "" where none is needed.

        Raises:
            RefusalError: UNAUTHENTICATED or PERMISSION_DENIED, naming the group that is needed.
        """
        group = group_of(method)
        tokens = self._store.current()
        if group is Group.HEALTH and tokens.open_health:
            return ""
        presented = bearer_token(metadata)
        if presented is None:
            raise RefusalError(
                Reason.UNAUTHENTICATED,
                f"no token came; expected metadata 'authorization: Bearer TOKEN' with a token of "
                f"the group '{group}'",
            )
        token = tokens.find(presented)
        if token is None:
            raise RefusalError(
                Reason.UNAUTHENTICATED,
                f"the token that came is not known; expected one of the group '{group}'",
            )
        if group not in token.groups:
            raise RefusalError(
                Reason.PERMISSION_DENIED,
                f"the token '{token.name}' does not have the group '{group}', which this method "
                f"needs; it has {', '.join(sorted(token.groups))}",
            )
        return token.name
