"""How a model runs on a device. Imported by worker processes only."""

import sys

# OpenVINO's Python package reports each import to its makers: it resolves an analytics host, and writes an id
# and counts into the home directory, without which it cannot be imported at all. With this it takes the stub
# that it has for where the reporting package is missing. Before any import of openvino, all of which are in
# this package or come after it.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
