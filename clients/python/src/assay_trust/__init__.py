"""Messages between programs, signed by the TPM of the device that says them.

Saying: :func:`assay_trust.agent.sign`, or :class:`assay_trust.session.NodeAuth` for ``requests``.
Hearing: :class:`assay_trust.receiver.Receiver`, in :mod:`assay_trust.wsgi`, :mod:`assay_trust.asgi`, or as the
decorator :func:`assay_trust.wsgi.secure_endpoint` for Flask.
"""

from .agent import Signed, sign
from .authority import Authority
from .receiver import Heard, Receiver, Refused

__all__ = ["Authority", "Heard", "Receiver", "Refused", "Signed", "sign"]
