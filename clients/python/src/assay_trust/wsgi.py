"""Hearing messages in a WSGI program: around all of it, or as a decorator of a Flask view."""

import functools
import io
import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from .receiver import BODY_BYTES_MAX, Heard, Receiver, Refused

KEY = "assay.heard"


class Secure:
    """Lets through what a node said, as ``environ["assay.heard"]``, and answers everything else itself."""

    def __init__(self, app: Callable[..., Iterable[bytes]], receiver: Receiver):
        self._app, self._receiver = app, receiver

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            environ[KEY] = _hear(self._receiver, environ)
        except Refused as refused:
            body = json.dumps(refused.body()).encode()
            phrase = HTTPStatus(refused.status).phrase
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
            start_response(f"{refused.status} {phrase}", headers)
            return [body]
        return self._app(environ, start_response)


def secure_endpoint(receiver: Receiver) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a Flask view: it is called for what a node said, which is ``flask.request.environ["assay.heard"]``."""

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        def secured(*args: Any, **kwargs: Any) -> Any:
            from flask import request

            try:
                request.environ[KEY] = _hear(receiver, request.environ)
            except Refused as refused:
                return refused.body(), refused.status
            return view(*args, **kwargs)

        return secured

    return decorate


def _hear(receiver: Receiver, environ: dict[str, Any]) -> Heard:
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdigit() or int(length) > BODY_BYTES_MAX:
        raise Refused(413, "Invalid signature", "body", f"a signed request has at most {BODY_BYTES_MAX} bytes")
    body = environ["wsgi.input"].read(int(length))
    environ["wsgi.input"] = io.BytesIO(body)
    headers = {name[5:].lower().replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")}
    return receiver.hear(environ["REQUEST_METHOD"], _path(environ), headers, body)


def _path(environ: dict[str, Any]) -> str:
    # As it was sent, where the server says so; else WSGI has taken it apart, and it is put together as clients write it.
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw and raw.startswith("/"):
        return raw
    path = quote((environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1"), safe="/;:@&=+$,!~*'()")
    query = environ.get("QUERY_STRING", "")
    return f"{path}?{query}" if query else path
