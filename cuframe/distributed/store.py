"""The store: a small table of bytes in one process, through which the ranks of a job find each other.

`StoreServer` runs in the launcher's event loop, or in a thread of rank 0; `Store` is the client. Values are bytes, all
waiting happens in the server, has a deadline, and ends early when a rank that is waited for is lost.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from .errors import DistributedError, DistributedTimeout, name_ranks
from .wire import ANSWER, MAGIC, NONCE, Frames, encode, greet, proof, same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Any

__all__ = ["Store", "StoreServer", "seconds"]

_HANDSHAKE = 5.0  # seconds a connection has to show that it knows the token
_STRANGERS = 256  # connections that may be in their handshake at a time
_LONGEST = 1e9  # seconds a request may wait
_PATIENCE = 4.0  # seconds a client waits for a greeting before it takes the server for a stranger
BEAT = 3.0  # seconds between two signs of life of a launcher
SILENCE = 15.0  # seconds without one after which its host counts as lost


def seconds(timeout: float | timedelta) -> float:
    """A timeout in seconds.

    Raises:
        ValueError: it is not above zero.
    """
    value = float(timeout) if isinstance(timeout, (int, float)) else timeout.total_seconds()
    if not value > 0:
        raise ValueError(f"timeout must be above 0 seconds, got {value:g}")
    return value


def _name(host: str) -> Any:  # typeshed knows no bytes here
    """A host's name for the resolver; Python imports tables of Unicode for the international ones alone."""
    return host.encode() if host.isascii() else host


def _tune(sock: socket.socket) -> None:
    """Send small messages at once, and notice in a quarter of a minute that the other host no longer answers."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class _Connection:
    """A client as the server sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.nonce: bytes | None = os.urandom(NONCE)  # None once the client is known
        self.since = time.monotonic()
        self.received = bytearray()
        self.frames = Frames()
        self.out = bytearray()
        self.rank: int | None = None
        self.name = ""
        self.heard = 0.0  # when the latest sign of life came, of those who give them
        self.closing = False


class _Wait:
    """A request that is answered once its keys are there."""

    def __init__(self, connection: _Connection, keys: list[str], ranks: list[int], deadline: float, fetch: bool):
        self.connection = connection
        self.keys = keys
        self.ranks = ranks
        self.deadline = deadline
        self.fetch = fetch


class StoreServer:
    """The table and its sockets.

    Args:
        host: the address to bind, and the only one.
        port: 0 for one that is free; `port` tells which it became.
        token: the job's secret.
        selector: an event loop to be part of: its owner calls `ready(key, mask)` for keys whose data is this server,
            and `sweep()` before every wait. Without one, `start()` runs a thread.
        on_lost: called with (rank, name, how) when the connection of a registered rank breaks, or falls silent though
            the rank had given signs of life; `how`: "has gone", or for how long nothing came.

    Attributes:
        port: where it listens.
        values: the table.
        failure: the message, once the job has been declared failed.
        final: whether that means that it must not be started again.

    Raises:
        DistributedError: the port is taken, or the address is not this host's.

    >>> server = StoreServer("127.0.0.1", 0, b"secret")
    >>> server.start()
    >>> store = Store("127.0.0.1", server.port, b"secret")
    >>> store.set("key", b"value")
    >>> store.get("key")
    b'value'
    >>> store.close(); server.close()
    """

    def __init__(
        self,
        host: str,
        port: int,
        token: bytes,
        selector: selectors.BaseSelector | None = None,
        on_lost: Callable[[int, str, str], None] | None = None,
    ) -> None:
        self.host, self._token, self._on_lost = host, token, on_lost
        self._own = selector is None
        self._selector = selectors.DefaultSelector() if selector is None else selector
        self.values: dict[str, bytes] = {}
        self._waits: list[_Wait] = []
        self._connections: set[_Connection] = set()
        self._lost: dict[int, str] = {}  # what is said of it
        self._due = time.monotonic()  # when `sweep` is to be called again
        self.failure: str | None = None
        self.final = False
        self._thread: threading.Thread | None = None
        try:
            family = socket.getaddrinfo(_name(host), port, type=socket.SOCK_STREAM)[0][0]
            self._listener = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise DistributedError(f"store: the address {host!r} cannot be resolved: {error.strerror}") from None
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((host, port))
            self._listener.listen(4096)
        except OSError as error:
            self._listener.close()
            if error.errno == errno.EADDRINUSE:
                raise DistributedError(
                    f"store: port {port} of {host} is taken by another process; choose another --master-port"
                ) from None
            raise DistributedError(f"store: cannot bind port {port} of {host}: {error.strerror}") from None
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ, self)
        self._wake, self._woken = socket.socketpair()

    # -- the event loop -------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Serve in a thread of this process until `close()`."""
        self._selector.register(self._woken, selectors.EVENT_READ, self)
        self._thread = threading.Thread(target=self._serve, name="cuframe store", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            for key, mask in self._selector.select(self.sweep()):
                if key.fileobj is self._woken:
                    return
                self.ready(key, mask)

    def ready(self, key: selectors.SelectorKey, mask: int) -> None:
        """Deal with one of this server's sockets that the selector reported."""
        if key.fileobj is self._listener:
            self._accept()
            return
        connection = next((c for c in self._connections if c.sock is key.fileobj), None)
        if connection is None:  # closed by an earlier event of the same round
            return
        try:
            if mask & selectors.EVENT_READ:
                self._read(connection)
            if mask & selectors.EVENT_WRITE:
                self._write(connection)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            self._drop(connection)  # a frame that is none, or a socket that broke: this client's trouble alone

    def sweep(self) -> float | None:
        """Answer waits that are over, drop clients that never said who they are; seconds until the next such moment."""
        now = time.monotonic()
        for wait in [w for w in self._waits if w.deadline <= now]:
            missing = [i for i, key in enumerate(wait.keys) if key not in self.values]
            self._waits.remove(wait)
            self._reply(wait.connection, {"error": "timeout", "missing": missing})
        for connection in [c for c in self._connections if c.nonce is not None and now - c.since > _HANDSHAKE]:
            self._drop(connection)
        beating = [c for c in self._connections if c.heard]
        if now > self._due + BEAT:  # it was this process that stood still: let it read what has come
            for connection in beating:
                connection.heard = max(connection.heard, now - SILENCE + BEAT)
        for connection in [c for c in beating if now - c.heard >= SILENCE]:
            self._drop(connection, f"has been silent for {SILENCE:g} s")
        moments = [w.deadline for w in self._waits]
        moments += [c.heard + SILENCE for c in self._connections if c.heard]
        moments += [c.since + _HANDSHAKE + 0.01 for c in self._connections if c.nonce is not None]
        patience = min(60.0, max(0.0, min(moments) - now)) if moments else None
        self._due = now + (60.0 if patience is None else patience)
        return patience

    def close(self) -> None:
        """Close all sockets."""
        if self._thread is not None:
            self._wake.send(b"x")
            self._thread.join()
            self._selector.unregister(self._woken)
        for connection in list(self._connections):
            connection.rank = None  # the server leaves, not the rank
            self._drop(connection)
        self._selector.unregister(self._listener)
        for sock in (self._listener, self._wake, self._woken):
            sock.close()
        if self._own:
            self._selector.close()

    # -- connections ----------------------------------------------------------------------------------------------
    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if sum(c.nonce is not None for c in self._connections) >= _STRANGERS:
            sock.close()
            return
        sock.setblocking(False)
        _tune(sock)
        connection = _Connection(sock)
        self._connections.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, self)
        assert connection.nonce is not None
        self._send(connection, MAGIC + connection.nonce)

    def _read(self, connection: _Connection) -> None:
        # Before the handshake, not one byte more than it needs.
        room = 1 << 18 if connection.nonce is None else ANSWER - len(connection.received)
        try:
            data = connection.sock.recv(room)
        except BlockingIOError:
            return
        if not data:
            self._drop(connection)
            return
        if connection.nonce is not None:
            connection.received += data
            if len(connection.received) == ANSWER:
                self._admit(connection, connection.nonce, bytes(connection.received))
            return
        connection.frames.feed(data)
        while not connection.closing and (frame := connection.frames.next()) is not None:
            self._handle(connection, *frame)

    def _admit(self, connection: _Connection, nonce: bytes, reply: bytes) -> None:
        client_nonce, came = reply[:NONCE], reply[NONCE:]
        if not same(came, proof(self._token, b"client", nonce, client_nonce)):
            self._drop(connection)
            return
        connection.nonce = None
        self._send(connection, proof(self._token, b"server", nonce, client_nonce))

    def _send(self, connection: _Connection, data: bytes) -> None:
        connection.out += data
        self._write(connection)

    def _write(self, connection: _Connection) -> None:
        try:
            sent = connection.sock.send(connection.out) if connection.out else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        del connection.out[:sent]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.out else 0)
        self._selector.modify(connection.sock, events, self)

    def _drop(self, connection: _Connection, how: str = "has gone") -> None:
        if connection.closing:
            return
        connection.closing = True
        self._connections.discard(connection)
        self._waits = [w for w in self._waits if w.connection is not connection]
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.sock.close()
        if connection.rank is not None:
            self._lost[connection.rank] = f"({connection.name}) {how}"
            self._answer_waits()
            if self._on_lost is not None:
                self._on_lost(connection.rank, connection.name, how)

    def _reply(self, connection: _Connection, header: dict[str, Any], body: bytes = b"") -> None:
        self._send(connection, encode(header, body))

    # -- requests -------------------------------------------------------------------------------------------------
    def _handle(self, connection: _Connection, request: dict[str, Any], body: bytes) -> None:
        match request["op"]:
            case "set":
                self.put(_text(request["key"]), body)
                self._reply(connection, {})
            case "wait":
                keys, ranks = [_text(k) for k in request["keys"]], [int(r) for r in request["ranks"]]
                if not 0 <= (patience := float(request["timeout"])) <= _LONGEST:
                    raise ValueError(f"a timeout of {patience} seconds")
                deadline = time.monotonic() + patience
                self._waits.append(_Wait(connection, keys, ranks, deadline, bool(request["fetch"])))
                self._answer_waits()
            case "add":
                key = _text(request["key"])
                total = int(self.values.get(key, b"0")) + int(request["amount"])
                self.put(key, b"%d" % total)
                self._reply(connection, {"value": total})
            case "compare_set":
                key, cut = _text(request["key"]), int(request["cut"])
                present = self.values.get(key)
                if present == body[:cut] or (present is None and cut == 0):
                    self.put(key, body[cut:])
                self._reply(connection, {}, self.values.get(key, body[:cut]))
            case "check":
                self._reply(connection, {"value": all(_text(k) in self.values for k in request["keys"])})
            case "delete":
                self._reply(connection, {"value": self.values.pop(_text(request["key"]), None) is not None})
            case "count":
                self._reply(connection, {"value": len(self.values)})
            case "fail":
                self.fail(_text(request["message"]), bool(request.get("final")))
                self._reply(connection, {})
            case "register":
                connection.rank, connection.name = int(request["rank"]), _text(request["name"])
                self._reply(connection, {})
            case "beat":
                connection.heard = time.monotonic()
                self._reply(connection, {})
            case "bye":
                connection.rank, connection.heard = None, 0.0
                self._reply(connection, {})
            case other:
                raise ValueError(f"unknown request {other!r}")

    def put(self, key: str, value: bytes) -> None:
        """Write a value; those who wait for the key are woken."""
        self.values[key] = value
        self._answer_waits()

    def fail(self, message: str, final: bool = False) -> None:
        """Let all that wait, and all that ask to, fail with `message`; the first message stays."""
        if self.failure is None:
            self.failure, self.final = message, final
            self._answer_waits()

    def _answer_waits(self) -> None:
        for wait in list(self._waits):
            missing = [i for i, key in enumerate(wait.keys) if key not in self.values]
            lost = [wait.ranks[i] for i in missing if i < len(wait.ranks) and wait.ranks[i] in self._lost]
            if not missing:
                values = [self.values[k] for k in wait.keys] if wait.fetch else []
                header: dict[str, Any] = {"lengths": [len(v) for v in values]}
                body = b"".join(values)
            elif self.failure is not None:
                header, body = {"error": "failed", "message": self.failure, "final": self.final}, b""
            elif lost:
                header, body = {"error": "lost", "rank": lost[0], "how": self._lost[lost[0]]}, b""
            else:
                continue
            if wait in self._waits:
                self._waits.remove(wait)
                self._reply(wait.connection, header, body)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {type(value).__name__}")
    return value


class Store:
    """A client of the job's store; threads may share it.

    Args:
        host, port: where the server is.
        token: the job's secret.
        timeout: seconds (or a timedelta) for connecting and, by default, for every wait.
        prefix: put before every key.

    Raises:
        DistributedTimeout: nothing listens there until the timeout.
        DistributedError: something else listens there, or the token is another job's.

    >>> import cuframe.distributed as dist
    >>> dist.init_process_group()
    >>> dist.get_rank(), dist.get_world_size()
    (0, 1)
    >>> dist.destroy_process_group()
    """

    def __init__(
        self, host: str, port: int, token: bytes, timeout: float | timedelta = 60.0, prefix: str = ""
    ) -> None:
        self.host, self.port, self.timeout, self.prefix = host, port, seconds(timeout), prefix
        self._token = token
        self._free: list[socket.socket] = []
        self._closed = False
        self._lock = threading.Lock()
        self._registered: socket.socket | None = None
        self._give_back(self._connect(self.timeout))

    def with_prefix(self, prefix: str) -> Store:
        """A store on the same server whose keys all begin with this store's prefix and `prefix`."""
        return Store(self.host, self.port, self._token, self.timeout, self.prefix + prefix)

    # -- the table ------------------------------------------------------------------------------------------------
    def set(self, key: str, value: bytes | str) -> None:
        """Write a value; those who wait for the key are woken."""
        self._ask({"op": "set", "key": self._key(key)}, _bytes("set", value))

    def get(self, key: str, timeout: float | timedelta | None = None) -> bytes:
        """The value of a key, waited for if need be.

        Raises:
            DistributedTimeout: it was not set in time.
            DistributedError: the job has failed meanwhile.
        """
        return self._wait("get", [key], timeout, fetch=True)[0]

    def wait(self, keys: Sequence[str], timeout: float | timedelta | None = None) -> None:
        """Wait until all of `keys` are set; raises as `get`."""
        self._wait("wait", list(keys), timeout, fetch=False)

    def add(self, key: str, amount: int) -> int:
        """Add to a number (0 if the key is new) and return the sum, as one step."""
        return self._ask({"op": "add", "key": self._key(key), "amount": int(amount)})[0]["value"]

    def compare_set(self, key: str, expected: bytes | str, desired: bytes | str) -> bytes:
        """Write `desired` if the value is `expected` (empty: or the key is new); returns the value afterwards."""
        old = _bytes("compare_set", expected)
        header = {"op": "compare_set", "key": self._key(key), "cut": len(old)}
        return self._ask(header, old + _bytes("compare_set", desired))[1]

    def check(self, keys: Sequence[str]) -> bool:
        """True if all of `keys` are set."""
        return self._ask({"op": "check", "keys": [self._key(k) for k in keys]})[0]["value"]

    def delete_key(self, key: str) -> bool:
        """Delete a key; True if it was there."""
        return self._ask({"op": "delete", "key": self._key(key)})[0]["value"]

    def num_keys(self) -> int:
        """How many keys the server holds, whatever their prefix."""
        return self._ask({"op": "count"})[0]["value"]

    # -- ranks ----------------------------------------------------------------------------------------------------
    def gather(
        self, name: str, rank: int, ranks: Iterable[int], value: bytes, timeout: float | timedelta | None = None
    ) -> list[bytes]:
        """Give `value` and return those of all `ranks`, in their order; each `name` serves once.

        Raises:
            DistributedTimeout: naming the ranks that gave nothing in time.
            DistributedError: a rank that is missing has gone.
        """
        members = list(ranks)
        self.set(f"{name}/{rank}", value)
        return self._wait(name, [f"{name}/{r}" for r in members], timeout, fetch=True, ranks=members)

    def register(self, rank: int, name: str) -> socket.socket:
        """Tie a rank to this process: when its connection breaks, those who wait for the rank are told `name`.

        Returns:
            The connection. Who sends `{"op": "beat"}` there, every `BEAT` seconds, has each answered, and counts as
            lost after `SILENCE` seconds without one; other processes are watched by TCP alone.
        """
        connection = self._connect(self.timeout)
        self._talk(connection, {"op": "register", "rank": rank, "name": name}, b"", self.timeout)
        self._registered = connection
        return connection

    def watch(self, key: str, ranks: Iterable[int], timeout: float | timedelta | None = None) -> bytes:
        """The value of a key, waited for until one of `ranks` is gone.

        Raises:
            DistributedTimeout: it was not set in time.
            DistributedError: a rank has gone, or the job has failed meanwhile.
        """
        members = list(ranks)
        return self._wait("watch", [key] * len(members), timeout, fetch=True, ranks=members)[0]

    def fail(self, message: str, final: bool = False) -> None:
        """Declare the job failed: all waits, now and later, raise with `message`; `final`: no launcher restarts it."""
        self._ask({"op": "fail", "message": message, "final": final})

    def close(self) -> None:
        """Close the connections; a registered rank takes its leave first."""
        if self._registered is not None:
            with contextlib.suppress(OSError, DistributedError):
                self._talk(self._registered, {"op": "bye"}, b"", 1.0)
            self._registered.close()
            self._registered = None
        with self._lock:
            self._closed = True
            while self._free:
                self._free.pop().close()

    # -- requests -------------------------------------------------------------------------------------------------
    def _key(self, key: str) -> str:
        if not isinstance(key, str):
            raise TypeError(f"store: a key must be a str, got {type(key).__name__}")
        return self.prefix + key

    def _wait(
        self, name: str, keys: list[str], timeout: float | timedelta | None, fetch: bool, ranks: Sequence[int] = ()
    ) -> list[bytes]:
        patience = self.timeout if timeout is None else seconds(timeout)
        request = {"op": "wait", "keys": [self._key(k) for k in keys], "ranks": list(ranks), "fetch": fetch}
        header, body = self._ask({**request, "timeout": patience}, patience=patience)
        match header.get("error"):
            case None:
                pass
            case "timeout":
                missing = header["missing"]
                who = f"{name_ranks(ranks[i] for i in missing)} did not come" if ranks else ""
                what = who or f"missing: {', '.join(keys[i] for i in missing[:8])}"
                raise DistributedTimeout(f"store: {name}: {what} within {patience:g} s")
            case "lost":
                raise DistributedError(f"store: {name}: rank {header['rank']} {header['how']}")
            case _:
                raise DistributedError(str(header["message"]))
        values, at = [], 0
        for length in header["lengths"]:
            values.append(body[at : at + length])
            at += length
        return values

    def _ask(self, header: dict[str, Any], body: bytes = b"", patience: float = 0.0) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            connection = self._free.pop() if self._free else None
        connection = connection or self._connect(self.timeout)
        result = self._talk(connection, header, body, patience + self.timeout)
        self._give_back(connection)
        return result

    def _give_back(self, connection: socket.socket) -> None:
        with self._lock:
            if not self._closed:
                self._free.append(connection)
                return
        connection.close()  # another thread's answer came after `close`

    def _talk(
        self, connection: socket.socket, header: dict[str, Any], body: bytes, patience: float
    ) -> tuple[dict[str, Any], bytes]:
        deadline = time.monotonic() + patience
        frames = Frames()
        try:
            connection.settimeout(patience)
            connection.sendall(encode(header, body))
            while (frame := frames.next()) is None:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                data = connection.recv(1 << 18)
                if not data:
                    raise ConnectionResetError
                frames.feed(data)
        except TimeoutError:
            connection.close()
            raise DistributedTimeout(
                f"store: {header['op']}: no answer from {self.host}:{self.port} within {patience:g} s"
            ) from None
        except OSError:
            connection.close()
            raise DistributedError(
                f"store: {header['op']}: the connection to {self.host}:{self.port} broke; "
                "the launcher, or rank 0, has ended"
            ) from None
        return frame

    def _connect(self, patience: float) -> socket.socket:
        deadline, where = time.monotonic() + patience, f"{self.host}:{self.port}"
        pause = 0.005
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DistributedTimeout(f"store: nothing listens at {where} after {patience:g} s; is rank 0 running?")
            try:
                connection = socket.create_connection((_name(self.host), self.port), timeout=left)
            except ConnectionRefusedError:
                time.sleep(min(pause, max(0.0, left)))
                pause = min(2 * pause, 0.2)
                continue
            except TimeoutError:
                continue
            except OSError as error:
                raise DistributedError(f"store: cannot connect to {where}: {error.strerror or error}") from None
            try:
                if connection.getsockname() == connection.getpeername():
                    connection.close()  # TCP met itself on a port nobody listens to yet
                    continue
                _tune(connection)
                greet(connection, self._token, where, _PATIENCE)
            except BaseException as error:
                connection.close()
                if isinstance(error, OSError) and not isinstance(error, DistributedError):
                    raise DistributedError(f"store: the connection to {where} broke: {error}") from None
                raise
            return connection


def _bytes(name: str, value: bytes | str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"store: {name}: a value must be bytes or str, got {type(value).__name__}")
    return bytes(value)
