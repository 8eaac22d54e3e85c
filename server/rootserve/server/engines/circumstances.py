"""What decides whether something that was found out at an earlier start still holds."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from importlib import metadata

from rootmodels.calibration import calibration_path
from rootmodels.processor import cpu_features, cpu_name, instruction_set_limit
from rootserve.server.engines.base import LoadSpec
from rootserve.server.machine import cpu_count

_LIBRARIES = ("rootserve", "numpy", "openvino", "torch")


def circumstances(spec: LoadSpec, device_name: str = "") -> dict[str, object]:
    """Model, files, machine, device, threads and versions. ``device_name`` tells apart equal numbers."""
    # Virtual machines give different processors one name; what they can do tells them apart.
    processor = [cpu_name(), *sorted(cpu_features()), instruction_set_limit(), cpu_count()]
    return {
        "model": spec.model,
        "files": list(_hashes(spec)),
        "device": [spec.device, device_name, *processor],
        "threads": spec.threads,
        "versions": [platform.python_version(), *map(_version, _LIBRARIES)],
    }


def digest(key: dict[str, object]) -> str:
    """32 hexadecimal digits, for the name of a file."""
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


def _hashes(spec: LoadSpec) -> Iterator[str]:
    """Of the weights and of what was measured of them."""
    if spec.weights is not None:
        for path in (spec.weights, calibration_path(spec.weights)):
            yield hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""
