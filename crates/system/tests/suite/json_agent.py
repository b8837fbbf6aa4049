"""An agent of the JSON protocol, as Python's standard library and openssl make one: `json_agent.py https://HOST:PORT KEY.pem`.

It says a line for each thing that it does.
"""
import base64
import hashlib
import json
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

address, key = sys.argv[1:3]
# The original verifies no certificates unless it is told to.
context = ssl._create_unverified_context()
lines = subprocess.run(["openssl", "pkey", "-in", key, "-pubout"], check=True, capture_output=True, text=True).stdout
public = "".join(line for line in lines.splitlines() if not line.startswith("-----"))
name = hashlib.sha256(public.encode()).hexdigest()


def ask(path, body=None, content_type="application/json"):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": content_type} if data else {})
    try:
        with urllib.request.urlopen(request, context=context) as answer:
            return answer.status, json.loads(answer.read()), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), error.headers


def signed(metrics, region, algorithm="sha256"):
    nonce = ask(f"/nonce?public_key_hash={name}")[1]["nonce"]
    message = json.dumps({"metrics": metrics, "geographic_region": region}, sort_keys=True).encode() + nonce.encode()
    signature = subprocess.run(["openssl", "dgst", f"-{algorithm}", "-sign", key], input=message, check=True, capture_output=True).stdout
    return {
        "metrics": metrics, "geographic_region": region, "nonce": nonce, "signature": signature.hex(),
        "digest": hashlib.new(algorithm, message).hexdigest(), "algorithm": algorithm, "timestamp": "2025-08-15T10:00:00.000001",
    }


metrics = {
    "timestamp": "2025-08-15T10:00:00", "service": {"name": "agent", "version": "1.0.0", "instance_id": "unknown"},
    "metrics": {"cpu_percent": 1e-05, "memory_percent": 1e16, "disk_usage_percent": -0.0, "network_io": {"bytes_sent": 2**70}},
    "custom_data": {"é": "\U0001f600\ud800\x7f", "\uffff": [float("inf"), None, True], "\U0001f600": 0.1},
}
region = {"region": "US", "state": "California", "city": "Santa Clara"}
for algorithm in ["sha256", "sha384", "sha512"]:
    status, body, headers = ask("/metrics", signed(metrics, region, algorithm))
    print(algorithm, status, body.get("status"), body.get("message"), "assay-ledger-leaf" in headers)
body = signed(metrics, region)
body["metrics"]["metrics"]["cpu_percent"] = 0.5
print("altered", *ask("/metrics", body)[:2])
print("again", *ask("/metrics", body)[:2])
print("elsewhere", *ask("/metrics", signed(metrics, {**region, "state": "Texas"}))[:2])
print("type", *ask("/metrics", {}, "text/plain")[:2])
print("empty", *ask("/metrics", {})[:2])
print("nothing", *ask("/somewhere")[:2])
for path in ["/health", "/metrics/status", "/gateway/status", "/gateway/rate-limits"]:
    status, body, _ = ask(path)
    print(path, status, " ".join(sorted(body)))
