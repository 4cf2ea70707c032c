"""A connection that can fall silent, as when a host loses its power."""

from __future__ import annotations

import contextlib
import socket
import threading


class Wire:
    """Between two hosts: what comes to `port` goes on to another one, both ways, until the power is gone."""

    def __init__(self, to: int) -> None:
        self.to, self.dead, self.ends = to, threading.Event(), []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self.listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.to))
                self.ends += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self.carry, args=pair, daemon=True).start()

    def carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self.dead.is_set():
                    return
                target.sendall(data)
            if not self.dead.is_set():  # afterwards neither end sees anything but silence
                target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for end in (self.listener, *self.ends):
            end.close()
