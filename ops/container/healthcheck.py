"""Exit status 0 if the service in this container is ready: asks /ready on the metrics port.

Takes host and port from where the service has them: the command line of the container's first process, the
environment, the file with settings; in this order.
"""

import argparse
import http.client
import ipaddress
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

PATIENCE_S = 4.0
FIRST_PROCESS = Path("/proc/1/cmdline")


def endpoint(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[str, int]:
    """Where the service with these ``arguments`` and this ``environment`` answers."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in ("--host", "--metrics-port", "--config"):
        parser.add_argument(option)
    given, _ = parser.parse_known_args(arguments)
    config = given.config or environment.get("ROOTSERVE_CONFIG")
    settings = _settings(Path(config)) if config else {}
    host = given.host or environment.get("ROOTSERVE_HOST") or str(settings.get("host", ""))
    port = environment.get("ROOTSERVE_METRICS_PORT", "")
    # Beside a Service called rootserve-metrics, Kubernetes sets it to tcp://10.0.0.1:8002.
    port = given.metrics_port or (port if port.isdecimal() else "")
    return _reached_by(host.strip("[]")), int(port or str(settings.get("metrics_port", 8002)))


def _settings(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, ValueError):  # the service says what is wrong with it
        return {}


def _reached_by(host: str) -> str:
    """The address to ask where the service listens on ``host``."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or "127.0.0.1"
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _first_process() -> list[str]:
    """The command line of the container's first process; nothing where it is not to be seen."""
    try:
        return os.fsdecode(FIRST_PROCESS.read_bytes()).split("\0")
    except OSError:
        return []


def main() -> int:
    """Ask, and say in one line what came."""
    host, port = endpoint(_first_process(), os.environ)
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        print(answer.read().decode(errors="replace").strip())
    except (OSError, http.client.HTTPException) as error:
        print(f"{host} port {port}: {error}")
        return 1
    finally:
        connection.close()
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
