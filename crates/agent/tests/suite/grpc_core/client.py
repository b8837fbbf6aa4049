"""Calls the Workload API with gRPC's core library, as Python, C++, Ruby and PHP programs do.

Messages stay bytes: what is looked at is the transport. Prints a line for each call: its first message in hex, or the
name of its status.
"""

import sys
from urllib.parse import quote

import grpc

socket, *calls = sys.argv[1:]
# What later versions say by themselves; that of Debian 12 says localhost.
options = [("grpc.default_authority", quote(socket.lstrip("/"), safe=""))]
with grpc.insecure_channel("unix:" + socket, options=options) as channel:
    for call in calls:
        method, _, metadata = call.partition(" ")
        invoke = channel.unary_stream("/SpiffeWorkloadAPI/" + method)
        headers = [tuple(pair.split("=")) for pair in metadata.split()]
        try:
            answers = invoke(b"", metadata=headers, timeout=20)
            print(next(answers).hex())
            answers.cancel()
        except grpc.RpcError as error:
            print(error.code().name)
