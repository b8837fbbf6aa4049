"""Hears messages: certificate, revocation and trust before the signature, the signature before a byte is read, and each once."""

import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from . import message
from .authority import Authority, NotTrusted, Unavailable
from .message import MESSAGE_BYTES_MAX, NotAMessage
from .replay import Again, Full, Replays

SIGNATURE_BYTES_MAX = 512
BODY_BYTES_MAX = 1 << 20


class Refused(Exception):
    """Why a request is not heard: HTTP's status, ``error`` as programs of old know it, a code, and a sentence."""

    def __init__(self, status: int, error: str, reason: str, detail: str):
        super().__init__(detail)
        self.status, self.error, self.reason, self.detail = status, error, reason, detail

    def body(self) -> dict[str, str]:
        return {"error": self.error, "reason": self.reason, "detail": self.detail}


@dataclass(frozen=True)
class Heard:
    """Which node said what."""

    from_node: int
    data: Any


class Receiver:
    """Hears messages to one audience. One per process; it may be used by several threads."""

    def __init__(self, authority: Authority, audience: str, clock: Callable[[], float] = time.time):
        self._authority, self._audience, self._clock = authority, audience, clock
        self._replays = Replays(clock())

    def hear(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Heard:
        """Hears the message that a request came with. ``path`` has the query; names of ``headers`` are small letters."""
        try:
            return self._hear(method, path, headers, body)
        except NotAMessage as error:
            raise Refused(401, "Invalid signature", "message", str(error)) from error
        except NotTrusted as error:
            raise Refused(401, "Certificate verification failed", "certificate", str(error)) from error
        except Again as error:
            raise Refused(401, "Invalid signature", "replayed", str(error)) from error
        except Full as error:
            raise Refused(429, "Too many messages", "too-many-messages", str(error)) from error
        except Unavailable as error:
            raise Refused(503, "Authentication failed", "unavailable", str(error)) from error

    def _hear(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Heard:
        names = ("x-from-node", "x-node-auth", "x-signature")
        if any(name not in headers for name in names):
            detail = "sign the request: X-From-Node, X-Node-Auth, X-Signature"
            raise Refused(401, "Missing authentication headers", "no-message", detail)
        now, sender = self._clock(), message.node_id(headers["x-from-node"])
        signed = _hex(headers["x-node-auth"], MESSAGE_BYTES_MAX)
        signature = _hex(headers["x-signature"], SIGNATURE_BYTES_MAX)
        signer = self._authority.signer(sender, _brought(headers.get("x-node-certificate")), now)
        _verify(signer, signature, signed)
        said = message.read(signed, self._audience, method, path, body, now)
        if said.from_node != sender:
            raise NotAMessage(f"the header says node {sender}, what was signed says node {said.from_node}")
        self._replays.take(said, hashlib.sha256(signed).digest(), now)
        return Heard(sender, said.data)


def _verify(signer: x509.Certificate, signature: bytes, signed: bytes) -> None:
    key = signer.public_key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            return key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
        if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
            # TPMs take as much salt as the hash is long, Python's programs as much as there is room for.
            salt = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
            return key.verify(signature, signed, salt, hashes.SHA256())
    except InvalidSignature:
        pass
    raise NotAMessage("the signature does not verify: the message was altered, or another key signed it")


def _hex(text: str, bytes_max: int) -> bytes:
    try:
        if len(text) <= 2 * bytes_max and text.isascii() and text.isalnum():
            return bytes.fromhex(text)
    except ValueError:
        pass
    raise NotAMessage(f"not hex of at most {bytes_max} bytes")


def _brought(header: str | None) -> x509.Certificate | None:
    if header is None:
        return None
    try:
        if header[:1] == ":" == header[-1:] and len(header) <= 16384:
            return x509.load_der_x509_certificate(base64.b64decode(header[1:-1], validate=True))
    except ValueError:
        pass
    raise NotTrusted("X-Node-Certificate: base64 of the DER between colons")
