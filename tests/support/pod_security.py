"""Kubernetes's Pod Security Standard "restricted", and what else no pod of ours may do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SECCOMP = {"RuntimeDefault", "Localhost"}


def violations(pod: dict[str, Any]) -> Iterator[str]:
    """What of a pod's ``spec`` the standard forbids."""
    own = pod.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"{name} is on"
    for volume in pod.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES:
            yield f"volume {volume['name']} is a {kinds.pop()}"
    containers = [*pod.get("initContainers", []), *pod["containers"]]
    for container in containers:
        yield from (f"{container['name']}: {one}" for one in _of_container(container, own))


def _of_container(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    both = {**pod, **own}
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges (allowPrivilegeEscalation)"
    if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
        yield "keeps capabilities"
    if both.get("runAsNonRoot") is not True:
        yield "may run as root (runAsNonRoot)"
    if both.get("runAsUser") == 0:
        yield "runs as user 0"
    if both.get("seccompProfile", {}).get("type") not in SECCOMP:
        yield "has no seccomp profile"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "takes a port of the host"
    # Beyond the standard.
    if own.get("readOnlyRootFilesystem") is not True:
        yield "can write to its root"
    if not {"requests", "limits"} <= set(container.get("resources", {})):
        yield "has no requests and limits"
