"""The form of a message: a JSON object in which each member is there once, bound to one request and good once."""

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

WINDOW_SECONDS = 300
MESSAGE_BYTES_MAX = 64 * 1024
NONCE_BYTES_MIN = 16
NODE_MAX = 2**31 - 1


class NotAMessage(Exception):
    """What was signed is no message about this request."""


@dataclass(frozen=True)
class Message:
    """A message that was read and is about the request that it came with."""

    from_node: int
    timestamp: int
    data: Any
    sequence: int | None


def node_id(text: str) -> int:
    """Decimal digits without a sign or a leading zero: one way to write each."""
    if not text.isascii() or not text.isdigit() or str(int(text[:11])) != text or int(text) > NODE_MAX:
        raise NotAMessage("not a node id: a decimal number up to 2147483647, without sign or leading zero")
    return int(text)


def read(signed: bytes, audience: str, method: str, path: str, body: bytes, now: float) -> Message:
    """Reads what was signed, and holds it against the request that it came with."""
    members = _strict(signed)
    if not isinstance(members, dict):
        raise NotAMessage("no JSON object")
    sender, timestamp = _number(members, "from_node"), _number(members, "timestamp")
    if sender > NODE_MAX:
        raise NotAMessage("not a node id")
    if "data" not in members:
        raise NotAMessage("`data` is missing")
    data, sequence = members.pop("data"), None
    if not members:
        raise NotAMessage("the message names no audience, method, path and body: it could be used for another request")
    if "sequence" in members and "nonce" not in members:
        sequence = _number(members, "sequence")
    elif "sequence" in members:
        raise NotAMessage("both a nonce and a sequence")
    else:
        _nonce(_text(members, "nonce"))
    digest = hashlib.sha256(body).hexdigest()
    bound = (("audience", audience), ("method", method), ("path", path), ("body_sha256", digest))
    for name, expected in bound:
        if _text(members, name) != expected:
            raise NotAMessage(f"the message is for another {name.removesuffix('_sha256')}")
    if members:
        raise NotAMessage("a member that messages do not have")
    if abs(timestamp - int(now)) > WINDOW_SECONDS:
        raise NotAMessage(f"the message is not of now: its time and this clock differ by {abs(timestamp - int(now))} s")
    return Message(sender, timestamp, data, sequence)


def _strict(signed: bytes) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        # Of two, readers differ in which one counts.
        if len(members) != len(pairs):
            raise NotAMessage("a member is there twice")
        return members

    def none(constant: str) -> Any:
        raise NotAMessage(f"{constant} is no JSON")

    try:
        return json.loads(signed.decode(), object_pairs_hook=once, parse_constant=none)
    except (ValueError, RecursionError) as error:
        raise NotAMessage("no JSON") from error


def _number(members: dict[str, Any], name: str) -> int:
    value = members.pop(name, None)
    if type(value) is not int or not 0 <= value < 2**64:
        raise NotAMessage(f"`{name}` is no whole number")
    return value


def _text(members: dict[str, Any], name: str) -> str:
    value = members.pop(name, None)
    if type(value) is not str:
        raise NotAMessage(f"`{name}` is missing or no text")
    return value


def _nonce(text: str) -> None:
    padded = text + "=" * (-len(text) % 4)
    try:
        nonce = base64.b64decode(padded, altchars=b"-_", validate=True)
    except ValueError as error:
        raise NotAMessage("the nonce is no base64url") from error
    if len(nonce) < NONCE_BYTES_MIN or "=" in text:
        raise NotAMessage(f"the nonce has less than {NONCE_BYTES_MIN} bytes")
