"""The launcher behind `cuframe run`: starts ranks, serves their store, and ends all when one fails.

One thread and one event loop: the ranks' deaths, their output, the store's sockets and the user's signals.

Note [Launchers of several hosts]
    The launcher of node 0 serves the store; the others wait there for the key `done`, or for the job's failure, so all
    learn of a fault at once, and all start the job again, as often on one host as on another. A launcher that is gone
    is the end: nobody would start its ranks. So is one that is silent, because its host has lost its power or the
    network: TCP says nothing of that while nobody speaks, so launchers give signs of life. Each attempt has a store and
    a token of its own, so what is left of the last attempt cannot speak to the next one.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time

from . import status
from .errors import DistributedError, how_it_ended
from .output import Pump, Screen, make_terminal, same_size
from .processes import RUN_ID, Guardian, adopt_orphans, children, end_children, reap, signal_group, spawn
from .store import BEAT, SILENCE, Store, StoreServer
from .wire import Frames, encode

TYPE_CHECKING = False  # until the ranks run, nothing is imported that takes time and that they can do without
if TYPE_CHECKING:
    from typing import IO

__all__ = ["Plan", "launch"]

_FAULT_GRACE = 0.25  # seconds from SIGTERM to SIGKILL once a rank has failed: the others cannot go on anyway
_USER_GRACE = 4.5  # the same when the user ends a healthy job
_FOREVER = 1e9
_JOIN = 60.0  # seconds in which the launchers of all hosts meet
_VERDICT = 5.0  # seconds in which node 0 has told whether there is another attempt
_TERMINAL = {"stdout": 1, "stderr": 2}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Plan:
    """What to run.

    Attributes:
        command: of a rank, as its process gets it.
        ranks: how many on this host.
        nodes, node: how many hosts, and which this is.
        host, port: of the store; port 0: one that is free.
        restarts: how often the job may be started again.
        log_dir: where each rank's output is written as well; None for nowhere.
        redirects, tee: local rank to the streams that go to files alone, and to files and, with a prefix, the terminal.
    """

    def __init__(
        self, command: list[str], ranks: int, nodes: int = 1, node: int = 0, host: str = "127.0.0.1", port: int = 0,
        restarts: int = 0, log_dir: str | None = None, redirects: dict[int, set[str]] | None = None,
        tee: dict[int, set[str]] | None = None,
    ) -> None:  # fmt: skip
        self.command, self.ranks, self.nodes, self.node = command, ranks, nodes, node
        self.host, self.port, self.restarts, self.log_dir = host, port, restarts, log_dir
        self.redirects, self.tee = redirects or {}, tee or {}


class _Rank:
    def __init__(self, rank: int, index: int, process: subprocess.Popen, pumps: dict[str, Pump]) -> None:
        self.rank, self.index, self.process, self.pumps = rank, index, process, pumps
        self.code: int | None = None

    @property
    def name(self) -> str:
        return f"rank {self.rank} (pid {self.process.pid}, host {socket.gethostname()})"


def launch(plan: Plan) -> int:
    """Run a plan to its end and return the exit status: 0, the failing rank's code, or 128 + a signal's number.

    Raises:
        DistributedError: the store's port is taken, or its host cannot be reached.
        OSError: the command cannot be run.
    """
    run_id = os.urandom(8).hex()
    others = children()  # of whoever launches from a program of their own
    guardian = Guardian(run_id)
    adopt_orphans(True)
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
    received = _Received()
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = {number: signal.signal(number, received.note) for number in caught}
    former |= {n: signal.signal(n, lambda *_: None) for n in (signal.SIGCHLD, signal.SIGWINCH)}
    former_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        for attempt in range(plan.restarts + 1):
            job = _Attempt(plan, attempt, run_id, reader, received, others | {guardian.pid})
            code = job.run()
            if code == 0 or received or job.final or attempt == plan.restarts:
                break
            print(f"cuframe run: restart {attempt + 1} of {plan.restarts}", file=sys.stderr, flush=True)
        return code
    finally:
        signal.set_wakeup_fd(former_fd)
        for number, handler in former.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()
        adopt_orphans(False)
        guardian.dismiss()


class _Received(list[int]):
    """The user's signals."""

    ends_waiting = False  # while the launcher waits for another, and its event loop does not run

    def note(self, number: int, frame: object) -> None:
        self.append(number)
        if self.ends_waiting:
            raise KeyboardInterrupt


class _Attempt:
    """The job from one start to its end."""

    def __init__(
        self, plan: Plan, attempt: int, run_id: str, signals: socket.socket, received: _Received, spared: set[int]
    ) -> None:
        self.plan, self.attempt, self.run_id = plan, attempt, run_id
        self.received, self.spared = received, spared
        self.signals = signals
        self.ranks: list[_Rank] = []
        self.cause: _Rank | None = None
        self.failure: str | None = None  # the message, once the job has failed
        self.failed_at = 0.0
        self.early: list[_Rank] = []  # who had ended well before
        self.final = False  # no restart will help
        self.finished = False  # node 0 knows that all is well here
        self.told = False  # it has said how the job ended
        self.killing_at: float | None = None
        self.selector = selectors.DefaultSelector()
        self.server: StoreServer | None = None
        self.store: Store | None = None
        self.watch: socket.socket | None = None
        self.pulse: socket.socket | None = None  # where signs of life go to node 0, and come from it
        self.heard = self.beaten = 0.0  # when the latest came, and when the latest went
        self.page = status.Reader(plan.ranks)
        self.screens = {stream: Screen(fd) for stream, fd in _TERMINAL.items()}
        if all(screen.terminal for screen in self.screens.values()) and len({os.fstat(f).st_rdev for f in (1, 2)}) == 1:
            self.screens["stdout"] = self.screens["stderr"]
        self.terminals: list[tuple[int, int]] = []  # those that were made, and those they are like
        self.obeyed = 0  # signals of the user that were passed on
        self.port = plan.port
        self.token = ""
        self.where: list[str] = []

    def run(self) -> int:
        try:
            self.selector.register(self.signals, selectors.EVENT_READ)
            self._open_store()
            for index in range(self.plan.ranks):
                self._start(index)
            while not self._over():
                self._step()
            self._take_leave()
        except KeyboardInterrupt:
            if not self.received:
                raise
        finally:
            self._end_all()
            self._close()
        return self._report()

    # -- start --------------------------------------------------------------------------------------------------
    def _open_store(self) -> None:
        plan = self.plan
        self.token = os.environ.get("CUFRAME_STORE_TOKEN") or os.urandom(16).hex()
        if plan.nodes > 1:
            from .environment import job_token

            self.token = job_token(os.environ, plan.host, plan.port).hex()
        if self.attempt:
            self.token += f".{self.attempt}"
        mine = f"{plan.nodes} {plan.ranks} {plan.restarts}".encode()
        if plan.node == 0:
            self.server = StoreServer(plan.host, plan.port, self.token.encode(), self.selector, self._lost)
            self.server.put("plan", mine)
            self.port = self.server.port
            return
        self.received.ends_waiting = True
        try:
            self.store = store = self._join()
            told = store.get("plan")
            if told != mine:
                words = "--nnodes {} --nproc-per-node {} --max-restarts {}"
                node, first = (words.format(*text.decode().split()) for text in (mine, told))
                message = f"all hosts must be given the same: node {plan.node} has {node}, node 0 {first}"
                store.fail(message, final=True)
                raise DistributedError(message)
            self.pulse = store.register(-1 - plan.node, f"the launcher of {self._me()}")
            self.watch = store._connect(_JOIN)
            store.timeout = _VERDICT  # from now on, to wait for long is to hold ranks up
        finally:
            self.received.ends_waiting = False
        request = {"op": "wait", "keys": ["done"], "ranks": [], "fetch": False, "timeout": _FOREVER}
        self.watch.sendall(encode(request))
        self.selector.register(self.watch, selectors.EVENT_READ)
        self.pulse.setblocking(False)
        self.selector.register(self.pulse, selectors.EVENT_READ)
        self.heard = time.monotonic()

    def _join(self) -> Store:
        """Meet node 0; after a restart, once it has closed the store of the last attempt."""
        deadline = time.monotonic() + _JOIN
        while True:
            try:
                return Store(self.plan.host, self.plan.port, self.token.encode(), _JOIN)
            except DistributedError:
                if not self.attempt or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _me(self) -> str:
        return f"node {self.plan.node} (pid {os.getpid()}, host {socket.gethostname()})"

    def _start(self, index: int) -> None:
        plan, rank = self.plan, self.plan.node * self.plan.ranks + index
        threads = str(max(1, len(os.sched_getaffinity(0)) // plan.ranks))
        environment = dict.fromkeys(_THREADS, threads) | os.environ | {
            "RANK": str(rank), "LOCAL_RANK": str(index), "WORLD_SIZE": str(plan.nodes * plan.ranks),
            "LOCAL_WORLD_SIZE": str(plan.ranks), "GROUP_RANK": str(plan.node), "GROUP_WORLD_SIZE": str(plan.nodes),
            "NODE_RANK": str(plan.node), "ROLE_NAME": "default", "ROLE_RANK": str(rank),
            "ROLE_WORLD_SIZE": str(plan.nodes * plan.ranks), "MASTER_ADDR": plan.host, "MASTER_PORT": str(self.port),
            "TORCHELASTIC_RESTART_COUNT": str(self.attempt), "TORCHELASTIC_MAX_RESTARTS": str(plan.restarts),
            "TORCHELASTIC_RUN_ID": self.run_id, "CUFRAME_STORE_TOKEN": self.token, "CUFRAME_STATUS": self.page.path,
            RUN_ID: self.run_id,
        }  # fmt: skip
        if index and any(screen.terminal for screen in self.screens.values()):
            environment = self._beside_a_bar() | environment
        ends: dict[str, int | None] = {"stdout": None, "stderr": None}
        pumps: dict[str, Pump] = {}
        for stream, screen in self.screens.items():
            alone = stream in plan.redirects.get(index, ())
            teed = stream in plan.tee.get(index, ())
            shown = teed or not alone
            if stream == "stderr" or not shown or teed or plan.log_dir is not None or screen.terminal:
                whole = shown and not teed and screen.terminal and index > 0
                if shown and not teed and screen.terminal and index == 0:
                    source, ends[stream] = make_terminal(screen.fd)
                    self.terminals.append((source, screen.fd))
                else:
                    source, ends[stream] = os.pipe()
                prefix = f"[rank {rank}] " if teed else ""
                log, hold = self._log(index, stream), stream == "stderr"
                pumps[stream] = Pump(source, screen if shown else None, log, prefix, hold, whole)
        try:
            process = spawn(plan.command, environment, ends["stdout"], ends["stderr"])
        finally:
            for end in ends.values():
                if end is not None:
                    os.close(end)
        started = _Rank(rank, index, process, pumps)
        for pump in pumps.values():
            self.selector.register(pump.source, selectors.EVENT_READ, pump)
        self.ranks.append(started)

    def _beside_a_bar(self) -> dict[str, str]:
        """What other ranks than the first are told where there is a terminal: its width, and to draw no bar beside."""
        fd = next(screen.fd for screen in self.screens.values() if screen.terminal)
        told = {"COLUMNS": str(os.get_terminal_size(fd).columns or 80), "TQDM_DISABLE": "1"}
        return told if "NO_COLOR" in os.environ else told | {"PYTHON_COLORS": "1"}  # a traceback's

    def _log(self, index: int, stream: str) -> IO[bytes] | None:
        if self.plan.log_dir is None:
            return None
        folder = f"{self.plan.log_dir}/{self.run_id}/attempt_{self.attempt}/{index}"
        os.makedirs(folder, exist_ok=True)
        return open(f"{folder}/{stream}.log", "wb")

    # -- the loop -----------------------------------------------------------------------------------------------
    def _over(self) -> bool:
        if any(r.code is None for r in self.ranks):
            return False
        if self.received:
            return True
        if self.failure is not None:  # whether there is another attempt is node 0's to say
            return self.server is not None or self.told or time.monotonic() > self.failed_at + _VERDICT
        if self.server is not None:
            return all(f"node/{n}" in self.server.values for n in range(1, self.plan.nodes))
        if self.store is not None and not self.finished:
            self.finished = True
            try:
                self.store.set(f"node/{self.plan.node}", b"")
            except DistributedError as error:
                self._fail(str(error), final=True)
        return self.told

    def _take_leave(self) -> None:
        """Tell the other launchers how it ended here."""
        if self.plan.nodes == 1:
            return
        if self.received:
            message = f"the launcher of {self._me()} was ended by {signal.Signals(self.received[0]).name}"
            if self.server is not None:
                self.server.fail(message, final=True)
            elif self.store is not None:
                with contextlib.suppress(DistributedError):
                    self.store.fail(message, final=True)
        elif self.server is not None and self.failure is None:
            self.server.put("done", b"")

    def _step(self) -> None:
        now = time.monotonic()
        if self.killing_at is not None and now >= self.killing_at:
            for r in self.ranks:
                signal_group(r.process.pid, signal.SIGKILL)
            self.killing_at = now + 0.05
        moments = [m for r in self.ranks for p in r.pumps.values() if (m := p.due()) is not None]
        if self.failure is not None and self.server is None:
            moments.append(self.failed_at + _VERDICT)
        if self.killing_at is not None:
            moments.append(self.killing_at)
        if self.pulse is not None:
            moments.append(min(self.beaten + BEAT, self.heard + SILENCE))
        patience = max(0.0, min(moments) - now) if moments else None
        if self.server is not None:
            swept = self.server.sweep()
            patience = swept if patience is None else patience if swept is None else min(patience, swept)
        for key, mask in self.selector.select(patience):
            if key.data is self.server and self.server is not None:
                self.server.ready(key, mask)
            elif isinstance(key.data, Pump):
                if not key.data.pump():
                    self.selector.unregister(key.data.source)
            elif key.fileobj is self.watch:
                self._told()
            elif key.fileobj is self.pulse:
                self._hear()
            else:
                with contextlib.suppress(BlockingIOError):
                    self.signals.recv(4096)
                self._reap()
                for terminal, like in self.terminals:
                    same_size(terminal, like)
        self._obey()
        self._beat()
        if self.server is not None and self.server.failure is not None and not self.received:
            self._fail(self.server.failure, self.server.final)
        now = time.monotonic()
        for r in self.ranks:
            for pump in r.pumps.values():
                due = pump.due()
                if r.code is None and due is not None and now >= due:
                    pump.release()

    def _reap(self) -> None:
        """Notice ranks that have ended, and reap adopted orphans that have."""
        ended = []
        for r in self.ranks:
            if r.code is None and (code := r.process.poll()) is not None:
                r.code = code
                ended.append(r)
        if not ended:
            reap(self.spared | {r.process.pid for r in self.ranks})
        # Who was killed comes before who noticed.
        for r in sorted((r for r in ended if r.code), key=lambda r: (r.code or 0) > 0):
            if self.failure is None and not self.received:
                self.cause = r
                self._fail(f"{r.name} {how_it_ended(r.code or 0)}{self.page.where(r.index)}")

    def _obey(self) -> None:
        """Pass the user's signals on."""
        if not self.received or self.failure is not None:
            return
        if self.killing_at is None:
            for r in self.ranks:
                signal_group(r.process.pid, self.received[0])
            self.killing_at = time.monotonic() + _USER_GRACE
            self.obeyed = len(self.received)
        elif len(self.received) > self.obeyed:
            self.killing_at = 0.0  # asked twice

    def _told(self) -> None:
        """The job is done, or another host failed, or is gone."""
        assert self.watch is not None
        frames, data = Frames(), b""
        with contextlib.suppress(OSError):
            data = self.watch.recv(1 << 16)
        self.selector.unregister(self.watch)
        frames.feed(data)
        frame, self.told = frames.next(), True
        if self.received:
            return
        if frame is None:
            self._fail(f"the launcher of node 0 (host {self.plan.host}) has gone", final=True)
        elif "error" in frame[0]:
            self._fail(str(frame[0].get("message")), bool(frame[0].get("final")))

    def _beat(self) -> None:
        """Give a sign of life where it is time, and take node 0's silence for its end."""
        if self.pulse is None or self.told:
            return
        now = time.monotonic()
        if now >= self.beaten + BEAT:
            self.beaten = now
            with contextlib.suppress(OSError):  # what is wrong with the connection, reading will show
                self.pulse.send(encode({"op": "beat"}))
        if now >= self.heard + SILENCE:
            self.told = True
            self._fail(f"the launcher of node 0 (host {self.plan.host}) has been silent for {SILENCE:g} s", final=True)

    def _hear(self) -> None:
        assert self.pulse is not None
        data = b""
        with contextlib.suppress(OSError):
            data = self.pulse.recv(1 << 12)
        self.heard = time.monotonic()
        if not data:
            self.selector.unregister(self.pulse)
            self.pulse = None

    def _lost(self, rank: int, name: str, how: str) -> None:
        if rank < 0 and f"node/{-1 - rank}" not in (self.server.values if self.server else {}):
            self._fail(f"{name} {how}", final=True)

    def _fail(self, message: str, final: bool = False) -> None:
        self.final |= final
        if self.failure is not None:
            return
        self.failure, self.failed_at = message, time.monotonic()
        self.early = [r for r in self.ranks if r.code == 0]
        if self.server is not None:
            self.server.fail(message, final)
        for r in self.ranks:
            if r.code is None:
                signal_group(r.process.pid, signal.SIGTERM)
        self.killing_at = time.monotonic() + _FAULT_GRACE
        if self.store is not None and self.cause is not None:
            with contextlib.suppress(DistributedError):
                self.store.fail(message, final)

    # -- the end ------------------------------------------------------------------------------------------------
    def _end_all(self) -> None:
        """Leave no process: ranks, what they started, and what left their sessions."""
        for r in self.ranks:
            signal_group(r.process.pid, signal.SIGKILL)
        end_children(self.spared)

    def _close(self) -> None:
        for r in self.ranks:
            for pump in r.pumps.values():
                with contextlib.suppress(KeyError, ValueError):
                    self.selector.unregister(pump.source)
                pump.pump()
                if self.failure is None:
                    pump.release()
        self.terminals.clear()
        if self.server is not None:
            self.server.close()
        if self.store is not None:
            self.store.close()
        if self.watch is not None:
            self.watch.close()
        self.selector.close()
        self.where = [self.page.where(r.index) for r in self.ranks]
        self.page.close()

    def _report(self) -> int:
        held = {r.rank: r.pumps["stderr"].take() for r in self.ranks}
        for r in self.ranks:
            for pump in r.pumps.values():
                pump.close()
        if self.failure is not None:
            lines = [f"cuframe run: {self.failure}"]
            lines += [f"cuframe run: {r.name} had exited with code 0{self.where[r.index]}" for r in self.early]
            if self.cause is not None and held[self.cause.rank]:
                lines.append(held[self.cause.rank].rstrip("\n"))
            self.screens["stderr"].end_line()
            print("\n".join(lines), file=sys.stderr, flush=True)
            code = self.cause.code if self.cause is not None and self.cause.code else 1
            return 128 - code if code < 0 else code
        return 128 + self.received[0] if self.received else 0
