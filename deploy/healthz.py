"""Exit 0 when this container's process says that it is well: GET /healthz on METRICS_PORT.

Plain http.client, so that no proxy of the environment comes between; it loads nothing of ours.
"""

import http.client
import os
import sys

PORT = int(os.environ.get("METRICS_PORT", "9108"))  # noqa: TID251 - it runs without core.settings


def main() -> int:
    """Ask once, wait at most three seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=3)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        body = answer.read(2000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"no answer on port {PORT}: {error}\n")
        return 1
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        sys.stderr.write(f"HTTP {answer.status}: {body}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
