"""Carries TPM commands from standard input to a TPM's unix socket, and its answers back, for the TSS's `cmd` transport."""

import os
import socket
import sys

tpm = socket.socket(socket.AF_UNIX)
tpm.connect(sys.argv[1])


def whole(read):
    """One command or answer: its length is in the bytes two to six."""
    message = b""
    while len(message) < 10 or len(message) < int.from_bytes(message[2:6], "big"):
        wanted = 10 if len(message) < 10 else int.from_bytes(message[2:6], "big")
        part = read(wanted - len(message))
        if not part:
            sys.exit(0)
        message += part
    return message


while True:
    tpm.sendall(whole(lambda size: os.read(0, size)))
    os.write(1, whole(tpm.recv))
