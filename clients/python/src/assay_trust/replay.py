"""Which messages were there before. Of a process: where several hear, each remembers what it heard itself."""

import threading

from .message import WINDOW_SECONDS, Message

NODE_MESSAGES_MAX = 10_000
MESSAGES_MAX = 1_000_000


class Again(Exception):
    """The message was there before, or may have been."""


class Full(Exception):
    """More messages than can be remembered."""


class Replays:
    """The messages of the last minutes, by node."""

    def __init__(self, now: float):
        # What was said before may have been heard by whoever stood here then.
        self._since = int(now)
        self._lock = threading.Lock()
        self._seen: dict[int, dict[bytes, int]] = {}
        self._sequences: dict[int, int] = {}
        self._count = 0
        self._swept = int(now)

    def take(self, message: Message, digest: bytes, now: float) -> None:
        """Takes a message, once."""
        with self._lock:
            if message.timestamp < self._since:
                raise Again("the message is from before this receiver started: say it again")
            if message.sequence is not None:
                before = self._sequences.get(message.from_node)
                if before is not None and message.sequence <= before:
                    raise Again(f"the message's sequence is {message.sequence}, and that of one before is {before}")
                self._sequences[message.from_node] = message.sequence
                return
            if int(now) > self._swept:
                self._sweep(int(now))
            seen = self._seen.setdefault(message.from_node, {})
            if digest in seen:
                raise Again("the message was there before")
            if len(seen) >= NODE_MESSAGES_MAX or self._count >= MESSAGES_MAX:
                raise Full("more messages than can be remembered: wait")
            seen[digest] = message.timestamp + WINDOW_SECONDS
            self._count += 1

    def _sweep(self, now: int) -> None:
        self._swept = now
        for node, seen in list(self._seen.items()):
            kept = {digest: until for digest, until in seen.items() if until >= now}
            self._count -= len(seen) - len(kept)
            if kept:
                self._seen[node] = kept
            else:
                del self._seen[node]
