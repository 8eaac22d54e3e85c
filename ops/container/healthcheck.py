"""Exit status 0 if the service in this container is ready: asks /ready on the metrics port."""

import http.client
import os
import sys
from collections.abc import Mapping

PATIENCE_S = 4.0
_EVERY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not to listen on


def endpoint(environment: Mapping[str, str]) -> tuple[str, int]:
    """Where the service of ``environment`` answers."""
    host = environment.get("ROOTSERVE_HOST", "").strip("[]")
    port = environment.get("ROOTSERVE_METRICS_PORT", "")
    # Beside a Service called rootserve-metrics, Kubernetes sets it to tcp://10.0.0.1:8002.
    return _EVERY_ADDRESS.get(host, host), int(port) if port.isdecimal() else 8002


def main() -> int:
    """Ask, and say in one line what came."""
    host, port = endpoint(os.environ)
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
