"""What goes over the store's sockets: a handshake that proves knowledge of the job's token, then frames.

Note [The store's protocol]
    The server greets with MAGIC and 32 random bytes. The client answers with 32 random bytes of its own and an HMAC of
    both under the token; the server with an HMAC of the same. So neither side goes on with a stranger, the token never
    crosses the wire, and an answer cannot be replayed. A frame is two lengths, a JSON object and raw bytes; a length
    above its cap ends the connection before anything is stored.
"""

from __future__ import annotations

import os
import struct
import time

from .errors import DistributedError, DistributedTimeout

TYPE_CHECKING = False  # what is needed once somebody connects is imported then: the launcher starts ranks before
if TYPE_CHECKING:
    import socket
    from typing import Any

__all__ = [
    "ANSWER", "BODY_MAX", "HEADER_MAX", "MAGIC", "NONCE", "Frames", "answer", "encode", "greet", "proof", "same",
]  # fmt: skip

MAGIC = b"cuframe-store-1\n"
NONCE = 32
PROOF = 32
GREETING = len(MAGIC) + NONCE  # what the server sends first
ANSWER = NONCE + PROOF  # what a client sends back
HEADER_MAX = 1 << 20
BODY_MAX = 64 << 20
_LENGTHS = struct.Struct(">II")


def proof(token: bytes, side: bytes, server_nonce: bytes, client_nonce: bytes) -> bytes:
    """The HMAC by which a side shows that it knows the token."""
    import hmac

    return hmac.digest(token, side + server_nonce + client_nonce, "sha256")


def same(came: bytes, expected: bytes) -> bool:
    """Whether two proofs are equal, in a time that does not tell where they differ."""
    import hmac

    return hmac.compare_digest(came, expected)


def answer(token: bytes, greeting: bytes) -> tuple[bytes, bytes]:
    """A client's reply to a greeting, and the proof that it expects back."""
    server_nonce, nonce = greeting[len(MAGIC) :], os.urandom(NONCE)
    return nonce + proof(token, b"client", server_nonce, nonce), proof(token, b"server", server_nonce, nonce)


def encode(header: dict[str, Any], body: bytes = b"") -> bytes:
    """One frame.

    Raises:
        ValueError: header or body is above its cap.
    """
    import json

    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) > HEADER_MAX or len(body) > BODY_MAX:
        raise ValueError(f"store: a message holds at most {BODY_MAX} bytes, got {len(body)} and {len(text)} of keys")
    return _LENGTHS.pack(len(text), len(body)) + text + body


class Frames:
    """Cuts a stream of bytes into frames.

    >>> frames = Frames()
    >>> frames.feed(encode({"op": "set"}, b"value"))
    >>> frames.next()
    ({'op': 'set'}, b'value')
    """

    def __init__(self) -> None:
        self.buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self.buffer += data

    def next(self) -> tuple[dict[str, Any], bytes] | None:
        """The next whole frame, or None.

        Raises:
            ValueError: the bytes are no frame.
        """
        if len(self.buffer) < _LENGTHS.size:
            return None
        header_length, body_length = _LENGTHS.unpack_from(self.buffer)
        if header_length > HEADER_MAX or body_length > BODY_MAX:
            raise ValueError(f"a frame of {header_length} and {body_length} bytes is above the cap")
        start = _LENGTHS.size + header_length
        end = start + body_length
        if len(self.buffer) < end:
            return None
        import json

        try:
            header = json.loads(self.buffer[_LENGTHS.size : start])
        except RecursionError:
            raise ValueError("the header is nested too deeply") from None
        if not isinstance(header, dict):
            raise ValueError("the header is not a JSON object")
        body = bytes(self.buffer[start:end])
        del self.buffer[:end]
        return header, body


def receive(connection: socket.socket, count: int, deadline: float) -> bytes:
    """Exactly `count` bytes, or fewer if the other side closes.

    Raises:
        TimeoutError: the deadline passed.
    """
    data = b""
    while len(data) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(count - len(data))
        if not piece:
            break
        data += piece
    return data


def greet(connection: socket.socket, token: bytes, where: str, patience: float) -> None:
    """A client's half of the handshake.

    Raises:
        DistributedError: no store of this job is at the other end; the message says what is.
    """
    deadline = time.monotonic() + patience
    try:
        greeting = receive(connection, GREETING, deadline)
        if not greeting.startswith(MAGIC) or len(greeting) != GREETING:
            raise DistributedError(
                f"store: the port {where} is taken by something that is no cuframe store (it sent {greeting[:16]!r}); "
                "choose another --master-port"
            )
        reply, expected = answer(token, greeting)
        connection.sendall(reply)
        came = receive(connection, PROOF, deadline)
    except TimeoutError:
        raise DistributedTimeout(
            f"store: the port {where} is taken by something that accepts connections but is no cuframe store "
            f"(silent for {patience:g} s); choose another --master-port"
        ) from None
    if not same(came, expected):
        raise DistributedError(
            f"store: the store at {where} belongs to another job: it has another token "
            "(set CUFRAME_STORE_TOKEN to one secret on all hosts, or choose another --master-port)"
        )
