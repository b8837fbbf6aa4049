"""The agent's door: it signs with the key in the TPM, for programs that an entry lets speak for the device."""

import hashlib
import http.client
import json
import os
import socket
from dataclasses import dataclass

SOCKET = "unix:///run/assay-agent/workload.sock"


class NotSigned(Exception):
    """The agent did not sign; ``status`` is HTTP's word for it, or ``None`` where it does not answer."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Signed:
    """What goes with a request: the number of this device, and headers."""

    from_node: int
    headers: dict[str, str]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float):
        super().__init__("agent", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def sign(
    audience: str,
    method: str,
    path: str,
    body: bytes = b"",
    data: object = ...,
    *,
    classic: bool = False,
    endpoint: str | None = None,
    timeout: float = 30.0,
) -> Signed:
    """Has the agent sign a message about a request.

    ``path`` is as it stands in the request, with its query. ``data`` is what is said; without it, it is the body, which has to
    be JSON then, and ``None`` where there is no body. ``endpoint`` is the Workload API's, by default that of
    ``SPIFFE_ENDPOINT_SOCKET``. ``classic``: by the device's RSA key, for receivers that verify no other.
    """
    if data is ...:
        said = body.decode() if body else "null"
        json.loads(said)
    else:
        said = json.dumps(data)
    fields = {
        "audience": audience,
        "method": method,
        "path": path,
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "profile": "classic" if classic else "",
    }
    # The data goes as it is written, so that a receiver compares what was sent.
    asked = json.dumps(fields)[:-1] + ', "data": ' + said + "}"
    endpoint = endpoint or os.environ.get("SPIFFE_ENDPOINT_SOCKET") or SOCKET
    connection = _Connection(endpoint.removeprefix("unix:").removeprefix("//"), timeout)
    try:
        headers = {"Content-Type": "application/json", "workload.spiffe.io": "true"}
        connection.request("POST", "/sign-message", asked.encode(), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotSigned(f"{endpoint}: no agent answers: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise NotSigned(answer["error"]["message"], response.status)
    return Signed(answer["from_node"], answer["headers"])
