"""Verifies a node's certificate and its list as Python's cryptography does, and says whether the list names it."""

import sys
from datetime import datetime, timezone

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

root, node, der, name = sys.argv[1:]
with open(root, "rb") as file:
    root = x509.load_pem_x509_certificate(file.read())
with open(node, "rb") as file:
    node = x509.load_pem_x509_certificate(file.read())
with open(der, "rb") as file:
    crl = x509.load_der_x509_crl(file.read())
policy = PolicyBuilder().store(Store([root])).time(datetime.now(timezone.utc))
policy.build_client_verifier().verify(node, [])
policy.build_server_verifier(x509.DNSName(name)).verify(node, [])
assert crl.is_signature_valid(root.public_key()) and crl.issuer == root.subject
entry = crl.get_revoked_certificate_by_serial_number(node.serial_number)
if entry is None:
    print("good")
else:
    print("revoked", entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value)
