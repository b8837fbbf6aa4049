"""A Python workload with the `spiffe` package: both kinds of identity, and what happens when the device falls.

Prints a line for each step. `fallen` waits on standard input until the device was made to fall.
"""

import sys
import time

from spiffe import JwtSource, WorkloadApiClient, X509Source

socket = "unix://" + sys.argv[1]

with WorkloadApiClient(socket) as client:
    context = client.fetch_x509_context(timeout=30)
    print("x509-svid", context.default_svid.spiffe_id)
    (bundle,) = client.fetch_x509_bundles().bundles
    print("x509-bundle", bundle.trust_domain.name, len(bundle.x509_authorities))
    token = client.fetch_jwt_svid(audience={"db"})
    print("jwt-svid", token.spiffe_id, ",".join(sorted(token.audience)))
    print("validated", client.validate_jwt_svid(token.token, "db").spiffe_id)

with X509Source(socket_path=socket) as certificates, JwtSource(socket_path=socket) as tokens:
    print("x509-source", certificates.get_x509_context().default_svid.spiffe_id)
    print("jwt-source", tokens.fetch_svid(audience={"db"}).spiffe_id)

print("standing", flush=True)
sys.stdin.readline()

with WorkloadApiClient(socket) as client:
    asked = time.monotonic()
    while time.monotonic() - asked < 20:
        try:
            client.fetch_x509_svid(timeout=5)
        except Exception as error:
            print("fallen", "PERMISSION_DENIED" in repr(error) or "withdrawn" in str(error), error)
            break
        time.sleep(0.05)
    try:
        client.fetch_jwt_svid(audience={"db"}, timeout=5)
        print("token although fallen")
    except Exception as error:
        print("no token", error)
