"""The store: its table, its deadlines, and what strangers can do to it (nothing)."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from cuframe.distributed import DistributedError, DistributedTimeout, Store
from cuframe.distributed.environment import job_token, read_environment
from cuframe.distributed.errors import how_it_ended, name_ranks
from cuframe.distributed.store import StoreServer
from cuframe.distributed.wire import HEADER_MAX, MAGIC, Frames, answer, encode

TOKEN = b"a secret"


@pytest.fixture
def server():
    server = StoreServer("127.0.0.1", 0, TOKEN)
    server.start()
    yield server
    server.close()


@pytest.fixture
def store(server):
    store = Store("127.0.0.1", server.port, TOKEN, timeout=timedelta(seconds=30))
    yield store
    store.close()


def raw(server, known: bool = True) -> socket.socket:
    """A bare connection, after the handshake if `known`."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    if known:
        greeting = b""
        while len(greeting) < len(MAGIC) + 32:
            greeting += connection.recv(100)
        reply, _ = answer(TOKEN, greeting)
        connection.sendall(reply)
        assert len(connection.recv(32)) == 32
    return connection


def test_table(store):
    store.set("a", "text")
    store.set("b", bytes(range(256)) * 1000)
    assert store.get("a") == b"text" and store.get("b") == bytes(range(256)) * 1000
    assert [store.add("n", 2), store.add("n", -5)] == [2, -3]
    assert store.compare_set("c", "", "first") == b"first"
    assert store.compare_set("c", "other", "second") == b"first"
    assert store.compare_set("c", "first", "second") == b"second"
    assert store.check(["a", "b"]) and not store.check(["a", "z"])
    assert store.num_keys() == 4 and store.delete_key("a") and not store.delete_key("a")
    part = store.with_prefix("part/")
    part.set("a", "1")
    assert store.get("part/a") == b"1"
    part.close()
    store.wait(["b", "c"])


def test_arguments_are_checked(store):
    with pytest.raises(TypeError, match="a key must be a str, got int"):
        store.set(1, b"")
    with pytest.raises(TypeError, match="set: a value must be bytes or str, got dict"):
        store.set("a", {})
    with pytest.raises(ValueError, match="timeout must be above 0 seconds, got 0"):
        store.get("a", timeout=0)


def test_a_wait_ends_when_the_key_comes(store):
    late = threading.Timer(0.1, store.set, ("late", b"here"))
    late.start()
    assert store.get("late") == b"here"
    late.join()


def test_a_wait_has_a_deadline_and_names_what_is_missing(store):
    store.set("there", b"")
    with pytest.raises(DistributedTimeout, match=r"wait: missing: x, y within 0\.2 s"):
        store.wait(["x", "there", "y"], timeout=0.2)


def test_gather_names_the_ranks_that_did_not_come(store):
    store.set("meet/2", b"two")
    with pytest.raises(DistributedTimeout, match=r"meet: ranks 1 and 3 did not come within 0\.2 s"):
        store.gather("meet", 0, range(4), b"zero", timeout=0.2)
    store.set("meet/1", b"one")
    assert store.gather("meet", 0, range(3), b"zero") == [b"zero", b"one", b"two"]


def test_waiting_for_a_rank_ends_when_its_process_does(server, store):
    other = Store("127.0.0.1", server.port, TOKEN)
    other.register(1, "pid 4711, host a")
    threading.Timer(0.1, other._registered.close).start()
    with pytest.raises(DistributedError, match=r"meet: rank 1 \(pid 4711, host a\) has gone"):
        store.gather("meet", 0, [0, 1], b"")
    other.close()


def test_a_rank_that_takes_its_leave_is_not_lost(server, store):
    other = Store("127.0.0.1", server.port, TOKEN)
    other.register(1, "pid 4711, host a")
    other.close()
    with pytest.raises(DistributedTimeout, match="rank 1 did not come"):
        store.gather("meet", 0, [0, 1], b"", timeout=0.3)


def test_failure_ends_all_waits(store):
    threading.Timer(0.1, store.fail, ("rank 2 died of SIGKILL",)).start()
    for _ in range(2):
        with pytest.raises(DistributedError, match="^rank 2 died of SIGKILL$"):
            store.get("never")


def test_a_wrong_token_is_refused(server, store):
    with pytest.raises(DistributedError, match="belongs to another job: it has another token"):
        Store("127.0.0.1", server.port, b"another", timeout=10)
    store.set("still", b"served")


def test_a_stranger_gets_no_answer_to_a_request(server):
    with raw(server, known=False) as connection:
        connection.sendall(encode({"op": "set", "key": "a"}, b"x") + bytes(100))
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1000):
                data += piece
    assert len(data) == len(MAGIC) + 32 and not server.values


def test_it_listens_where_it_was_told_and_nowhere_else(server):
    port = f"{server.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    bound = [row[1] for row in rows if row[1].endswith(port) and row[3] == "0A"]
    assert bound == [f"0100007F:{port}"]


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DistributedError, match=f"port {port} of 127.0.0.1 is taken by another process"):
            StoreServer("127.0.0.1", port, TOKEN)


@pytest.mark.parametrize("says", [b"HTTP/1.0 400 Bad Request\r\n" * 4, b""])
def test_a_stranger_at_the_port_is_recognised(says, monkeypatch):
    monkeypatch.setattr("cuframe.distributed.store._PATIENCE", 0.3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        accepted = []

        def serve():
            accepted.append(taken.accept()[0])
            accepted[0].sendall(says)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(DistributedError, match=r"127\.0\.0\.1:\d+ is taken by something"):
            Store("127.0.0.1", taken.getsockname()[1], TOKEN, timeout=10)
        accepted[0].close()


def test_nobody_there_is_a_timeout():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening
        with pytest.raises(DistributedTimeout, match=r"nothing listens at 127\.0\.0\.1:\d+ after 0\.2 s"):
            Store("127.0.0.1", free.getsockname()[1], TOKEN, timeout=0.2)


def test_unknown_addresses_are_named():
    with pytest.raises(DistributedError, match="cannot bind port 0 of 192.0.2.1"):
        StoreServer("192.0.2.1", 0, TOKEN)


def test_fuzzed_bytes_hurt_only_who_sends_them(server, store):
    """Random bytes before and after the handshake, broken frames, wrong types: the store goes on serving."""
    store.set("a", b"1")
    rng = random.Random(0)
    frames = [
        struct.pack(">II", 0xFFFFFFFF, 0xFFFFFFFF), struct.pack(">II", HEADER_MAX + 1, 0),
        struct.pack(">II", 5, 0) + b"{bad}",
        struct.pack(">II", 2, 0) + b"[]", struct.pack(">II", 50000, 0) + b"[" * 50000,
        encode({}), encode({"op": "unknown"}), encode({"op": "set", "key": ["a"]}), encode({"op": "set"}),
        encode({"op": "wait", "keys": 7, "ranks": [], "timeout": 1, "fetch": True}),
        encode({"op": "wait", "keys": ["q"], "ranks": ["x"], "timeout": 1, "fetch": True}),
        encode({"op": "wait", "keys": ["q"], "ranks": [], "timeout": "soon", "fetch": True}),
        *(encode({"op": "wait", "keys": ["q"], "ranks": [], "timeout": t, "fetch": True})
          for t in (1e300, -1, float("inf"), float("nan"))),
        encode({"op": "add", "key": "a", "amount": None}), encode({"op": "add", "key": "a", "amount": 1e400}),
        encode({"op": "compare_set", "key": "a", "cut": "1"}), encode({"op": "register", "rank": "one", "name": "x"}),
    ]  # fmt: skip
    for data in frames:
        with raw(server) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1000):
                pass
    for i in range(60):
        with raw(server, known=i % 2 == 0) as connection:
            connection.sendall(rng.randbytes(rng.randrange(1, 3000)))
    assert store.get("a") == b"1" and store.add("n", 1) == 1
    deadline = time.monotonic() + 20
    while len(server._connections) > 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(server._connections) <= 2  # the store's own


def test_silent_connections_are_dropped_and_bounded(server, store, monkeypatch):
    monkeypatch.setattr("cuframe.distributed.store._HANDSHAKE", 0.2)
    monkeypatch.setattr("cuframe.distributed.store._STRANGERS", 5)
    connections = [raw(server, known=False) for _ in range(8)]
    for connection in connections:
        while connection.recv(1000):
            pass
        connection.close()
    store.set("a", b"1")


def test_frames_arrive_whole_however_they_are_cut():
    sent = [({"op": "set", "key": str(i)}, bytes(i)) for i in range(20)]
    data = b"".join(encode(*frame) for frame in sent)
    frames, came = Frames(), []
    for i in range(0, len(data), 7):
        frames.feed(data[i : i + 7])
        while (frame := frames.next()) is not None:
            came.append(frame)
    assert came == sent
    with pytest.raises(ValueError, match="a message holds at most"):
        encode({}, bytes((64 << 20) + 1))


def test_words():
    assert [name_ranks(r) for r in ([1], [3, 1], [0, 1, 2])] == ["rank 1", "ranks 1 and 3", "ranks 0, 1 and 2"]
    assert how_it_ended(-9) == "died of SIGKILL" and how_it_ended(3) == "exited with code 3"


def test_environments_of_other_launchers():
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29400"}
    job = read_environment(torchrun)
    assert (job.rank, job.world_size, job.local_rank, job.host, job.port) == (3, 4, 1, "a", 29400)
    assert read_environment(torchrun | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).port == 29401
    mpi = read_environment(
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    )
    assert (mpi.rank, mpi.world_size, mpi.local_rank, mpi.launcher) == (1, 2, 1, "Open MPI")
    assert read_environment({"PMI_RANK": "0", "PMI_SIZE": "2"}).hosts_store
    slurm = {"SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "77"}
    assert read_environment(slurm).world_size == 1  # sbatch's own shell
    job = read_environment(slurm | {"SLURM_STEP_ID": "0"})
    assert (job.rank, job.world_size) == (2, 3) and 20000 <= job.port < 30000
    assert read_environment({}).world_size == 1
    with pytest.raises(ValueError, match="RANK must be a number, got 'x'"):
        read_environment({"RANK": "x", "WORLD_SIZE": "2"})
    with pytest.raises(ValueError, match="rank must be from 0 to 1, got 2"):
        read_environment({"RANK": "2", "WORLD_SIZE": "2"})
    with pytest.raises(ValueError, match="rank is given but world_size is not"):
        read_environment({}, rank=0)


def test_the_users_key_is_made_once_and_private(tmp_path, monkeypatch):
    monkeypatch.setenv("CUFRAME_CACHE_DIR", str(tmp_path / "cache"))
    one, two = job_token({}, "a", 1), job_token({}, "a", 2)
    assert one != two and one == job_token({}, "a", 1) and job_token({"CUFRAME_STORE_TOKEN": "x"}, "a", 1) == b"x"
    assert os.stat(tmp_path / "cache" / "store.key").st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "cache") == ["store.key"]
