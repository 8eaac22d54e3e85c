"""Exit status 0 if the service in this container is ready: asks /ready on the metrics port."""

import http.client
import os
import sys

PATIENCE_S = 4.0


def main() -> int:
    """Ask, and say in one line what came."""
    port = int(os.environ.get("ROOTSERVE_METRICS_PORT", "8002"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        print(answer.read().decode().strip())
    except OSError as error:
        print(f"port {port}: {error}")
        return 1
    finally:
        connection.close()
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
