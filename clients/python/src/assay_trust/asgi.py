"""Hearing messages in an ASGI program (Starlette, FastAPI, Quart)."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from .receiver import BODY_BYTES_MAX, Receiver, Refused
from .wsgi import KEY


class Secure:
    """Lets through what a node said, as ``scope["assay.heard"]``, and answers everything else itself."""

    def __init__(self, app: Callable[..., Awaitable[None]], receiver: Receiver):
        self._app, self._receiver = app, receiver

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            # What is no request has no message.
            raise RuntimeError(f"{scope['type']}: only requests can be signed")
        try:
            body = await _body(receive)
            # The server may be asked, and a signature takes its time: not on the loop.
            heard = await asyncio.to_thread(
                self._receiver.hear, scope["method"], _path(scope), _headers(scope), body
            )
        except Refused as refused:
            return await _answer(send, refused)
        told = False

        async def again() -> dict[str, Any]:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app({**scope, KEY: heard}, again, send)


async def _body(receive: Callable[..., Any]) -> bytes:
    body = bytearray()
    while True:
        part = await receive()
        body += part.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise Refused(413, "Invalid signature", "body", f"a signed request has at most {BODY_BYTES_MAX} bytes")
        if not part.get("more_body"):
            return bytes(body)


def _path(scope: dict[str, Any]) -> str:
    path, query = scope["raw_path"].decode("ascii"), scope["query_string"].decode("ascii")
    return f"{path}?{query}" if query else path


def _headers(scope: dict[str, Any]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        name = name.decode("latin-1").lower()
        # Of two, readers differ in which one counts: joined they are neither.
        headers[name] = f"{headers[name]},{value.decode('latin-1')}" if name in headers else value.decode("latin-1")
    return headers


async def _answer(send: Callable[..., Any], refused: Refused) -> None:
    body = json.dumps(refused.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
