"""What is asked of the server: which certificate is a node's, and the revocation list. Whom to believe comes from a file."""

import http.client
import json
import ssl
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

ANSWER_BYTES_MAX = 32 << 20
NODES_MAX = 100_000


class Unavailable(Exception):
    """The server does not say what has to be known; nobody is believed without."""


class NotTrusted(Exception):
    """The certificate does not verify, is another's, or was withdrawn."""


@dataclass(frozen=True)
class Node:
    """Who has a number, and by which certificate."""

    spiffe_id: str
    certificate: x509.Certificate
    issuing: x509.Certificate


class Authority:
    """A server at an address such as ``https://console.example.org:8445``, recognised by the trust bundle (PEM).

    The revocation list is asked for again when it is older than ``crl_seconds``.
    """

    def __init__(self, address: str, bundle: str, trust_domain: str, *, crl_seconds: float = 1.0, timeout: float = 5.0):
        where = urlsplit(address)
        if where.scheme != "https" or not where.hostname:
            raise ValueError("address: https://HOST:PORT")
        self._host, self._port = where.hostname, where.port or 443
        with open(bundle, "rb") as file:
            self._roots = x509.load_pem_x509_certificates(file.read())
        self._tls = ssl.create_default_context(cafile=bundle)
        # A server of Assay is told by its SPIFFE ID, whatever it is called.
        self._tls.check_hostname = False
        self._id, self._timeout, self._crl_seconds = f"spiffe://{trust_domain}", timeout, crl_seconds
        self._lock = threading.Lock()
        self._nodes: dict[int, Node] = {}
        self._crl: x509.CertificateRevocationList | None = None
        self._crl_tag, self._crl_at = "", float("-inf")

    def signer(self, node: int, brought: x509.Certificate | None, now: float) -> x509.Certificate:
        """The certificate by which a node's signature is verified: the one that it brought, or the newest that is kept.

        Verified to the bundle, named by the list in force, and of the device that has the number.
        """
        known = self._node(node, fresh=False)
        chosen = brought or known.certificate
        try:
            return self._verified(known, chosen, now)
        except NotTrusted:
            # Renewed, or by another authority than the last.
            known = self._node(node, fresh=True)
            return self._verified(known, brought or known.certificate, now)

    def _verified(self, known: Node, leaf: x509.Certificate, now: float) -> x509.Certificate:
        at = _datetime(now)
        verifier = PolicyBuilder().store(Store(self._roots)).time(at).max_chain_depth(2).build_client_verifier()
        try:
            verified = verifier.verify(leaf, [known.issuing])
        except VerificationError as error:
            raise NotTrusted(f"the certificate does not verify: {error}") from error
        uris = [name.value for name in verified.subjects if isinstance(name, x509.UniformResourceIdentifier)]
        if uris != [known.spiffe_id] or not known.spiffe_id.startswith(self._id + "/"):
            raise NotTrusted("the certificate is another's")
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
            raise NotTrusted("the certificate is not for clients")
        crl = self._list(known.issuing, now)
        if crl.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None:
            raise NotTrusted("the certificate was withdrawn")
        return leaf

    def _list(self, issuing: x509.Certificate, now: float) -> x509.CertificateRevocationList:
        with self._lock:
            if self._crl is None or time.monotonic() - self._crl_at > self._crl_seconds:
                status, tag, body = self._get("/crl", {"If-None-Match": self._crl_tag} if self._crl_tag else {})
                if status == 200:
                    self._crl, self._crl_tag = x509.load_der_x509_crl(body), tag
                elif status != 304:
                    raise Unavailable(f"/crl: {status}")
                self._crl_at = time.monotonic()
            crl = self._crl
        if crl is None or crl.issuer != issuing.subject or not crl.is_signature_valid(issuing.public_key()):
            raise NotTrusted("the revocation list is not of the certificate's authority")
        ends = crl.next_update_utc
        if ends is None or ends <= _datetime(now):
            raise Unavailable("the revocation list is over")
        return crl

    def _node(self, number: int, fresh: bool) -> Node:
        known = self._nodes.get(number)
        if known is not None and not fresh:
            return known
        status, _, body = self._get(f"/trust/certificate/{number}", {})
        if status == 404:
            raise NotTrusted(f"there is no node {number}")
        if status != 200:
            raise Unavailable(f"/trust/certificate: {status}")
        told = json.loads(body)
        certificates = [x509.load_pem_x509_certificate(told[name].encode()) for name in ("certificate", "issuing_certificate")]
        if known is not None and known.spiffe_id != told["spiffe_id"]:
            # A number is one device's for good.
            raise NotTrusted(f"node {number} was another device before")
        known = Node(told["spiffe_id"], *certificates)
        if len(self._nodes) < NODES_MAX:
            self._nodes[number] = known
        return known

    def _get(self, path: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        try:
            connection.connect()
            names = connection.sock.getpeercert().get("subjectAltName", ())
            if ("URI", f"{self._id}/assay/server") not in names:
                raise Unavailable("whoever answers is no server of this trust domain")
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read(ANSWER_BYTES_MAX + 1)
            if len(body) > ANSWER_BYTES_MAX:
                raise Unavailable(f"{path}: too long")
            return response.status, response.headers.get("ETag", ""), body
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the server cannot be asked: {error}") from error
        finally:
            connection.close()


def _datetime(now: float):
    from datetime import datetime, timezone

    return datetime.fromtimestamp(now, timezone.utc)
