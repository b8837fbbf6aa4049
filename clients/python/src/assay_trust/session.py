"""Signs the requests of the package ``requests``: ``requests.post(url, json=…, auth=NodeAuth("assay"))``."""

from requests.auth import AuthBase
from requests.models import PreparedRequest

from .agent import sign


class NodeAuth(AuthBase):
    """Each request is signed in this device's name, for one audience."""

    def __init__(self, audience: str, endpoint: str | None = None):
        self.audience = audience
        self.endpoint = endpoint

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        body = request.body or b""
        if isinstance(body, str):
            body = body.encode()
        if not isinstance(body, bytes):
            raise TypeError("a body that is read as it is sent cannot be signed: give bytes")
        said = {} if body[:1] in (b"{", b"[") or not body else {"data": None}
        signed = sign(self.audience, request.method, request.path_url, body, endpoint=self.endpoint, **said)
        request.headers.update(signed.headers)
        return request
