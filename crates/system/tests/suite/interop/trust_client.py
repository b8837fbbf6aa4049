"""Programs of a device and of nobody: what one says is heard by services behind WSGI, Flask and ASGI, until the device falls."""

import sys
import threading
import time
from wsgiref.simple_server import WSGIRequestHandler, make_server

import flask
import requests
import uvicorn

from assay_trust import Authority, Receiver, asgi, sign, wsgi
from assay_trust.agent import NotSigned
from assay_trust.session import NodeAuth

endpoint, console, bundle, trust_domain = sys.argv[1:]
AUDIENCE = "line-7"


def receiver() -> Receiver:
    return Receiver(Authority(console, bundle, trust_domain, crl_seconds=0.1), AUDIENCE)


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def serve(app) -> str:
    server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def plain(environ, start_response):
    heard = environ[wsgi.KEY]
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{heard.from_node} {heard.data['speed']} {len(body)}".encode()]


view = flask.Flask(__name__)


@view.post("/secure/data")
@wsgi.secure_endpoint(receiver())
def data():
    heard = flask.request.environ[wsgi.KEY]
    return f"{heard.from_node} {heard.data['speed']} {len(flask.request.get_data())}"


async def asynchronous(scope, receive, send):
    body = (await receive())["body"]
    heard = scope[wsgi.KEY]
    answer = f"{heard.from_node} {heard.data['speed']} {len(body)}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": answer})


def serve_asgi(app) -> str:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


services = {
    "wsgi": serve(wsgi.Secure(plain, receiver())),
    "flask": serve(view),
    "asgi": serve_asgi(asgi.Secure(asynchronous, receiver())),
}
session = requests.Session()
# What was said before a receiver began may have been heard then.
time.sleep(1.1)


def prepared(base, path="/secure/data?line=7", **kwargs):
    request = requests.Request("POST", base + path, auth=NodeAuth(AUDIENCE, endpoint), **kwargs)
    return session.prepare_request(request)


def told(name, request):
    answer = session.send(request)
    print(name, answer.status_code, answer.json()["reason"] if answer.status_code != 200 else answer.text, flush=True)


kept = {}
for name, base in services.items():
    said = prepared(base, json={"speed": 3, "é": 1.0})
    told(name, said)
    told(f"{name} again", said)
    elsewhere = prepared(base, json={"speed": 3})
    elsewhere.url = elsewhere.url.replace("line=7", "line=8")
    told(f"{name} elsewhere", elsewhere)
    altered = prepared(base, json={"speed": 3})
    altered.body = b'{"speed": 4}'
    told(f"{name} altered", altered)
    forged = prepared(base, json={"speed": 3})
    forged.headers["X-Signature"] = "00" + forged.headers["X-Signature"][2:]
    told(f"{name} forged", forged)
    other = prepared(base, json={"speed": 3})
    other.headers["X-From-Node"] = "9"
    told(f"{name} another's", other)
    late = prepared(base, json={"speed": 3})
    late.headers.pop("X-Node-Certificate")
    told(f"{name} without its certificate", late)
    told(f"{name} unsigned", session.prepare_request(requests.Request("POST", base + "/secure/data")))
    kept[name] = prepared(base, json={"speed": 3})
print("standing", flush=True)
sys.stdin.readline()
for name, request in kept.items():
    told(f"{name} after the fall", request)
try:
    sign(AUDIENCE, "POST", "/", endpoint=endpoint)
    print("signed")
except NotSigned as error:
    print("not signed", error.status)
