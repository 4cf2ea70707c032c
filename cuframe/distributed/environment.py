"""Who am I? What torchrun, mpirun, srun and `cuframe run` tell a process about its job."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass

from .._paths import cache_dir

__all__ = ["Job", "job_token", "read_environment"]

_DEFAULT_PORT = 29500  # as torchrun's

# Launcher: variables of rank, world size and local rank, most specific first.
_LAUNCHERS = {
    "RANK and WORLD_SIZE": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "PMI": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    "Slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
}


@dataclass(frozen=True)
class Job:
    """A process's place in its job.

    Attributes:
        rank, world_size, local_rank: as torchrun's variables.
        host, port: where the store is.
        hosts_store: this process has to run the store's server.
        launcher: whose variables these are.
    """

    rank: int
    world_size: int
    local_rank: int
    host: str
    port: int
    hosts_store: bool
    launcher: str


def read_environment(
    environment: Mapping[str, str], rank: int | None = None, world_size: int | None = None
) -> Job:
    """The job as the environment tells it; without any launcher's variables, a job of one process.

    Args:
        environment: `os.environ`, usually.
        rank, world_size: override the environment.

    Raises:
        ValueError: a variable is missing or is no number, or the rank is not below the world size.

    >>> read_environment({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}).rank
    1
    """
    launcher, local_rank = "none", 0
    for name, (rank_key, size_key, local_key) in _LAUNCHERS.items():
        if name == "Slurm" and "SLURM_STEP_ID" not in environment:
            continue  # a script started by sbatch itself is no task of srun
        if rank_key in environment and size_key in environment:
            launcher = name
            rank = _number(environment, rank_key) if rank is None else rank
            world_size = _number(environment, size_key) if world_size is None else world_size
            local_rank = _number(environment, local_key) if local_key in environment else rank
            break
    if rank is None and world_size is None:
        rank, world_size = 0, 1
    elif rank is None or world_size is None:
        known, missing = ("world_size", "rank") if rank is None else ("rank", "world_size")
        raise ValueError(f"init_process_group: {known} is given but {missing} is not, and no launcher tells it")
    if not 0 <= rank < world_size:
        raise ValueError(f"init_process_group: rank must be from 0 to {world_size - 1}, got {rank}")
    port = _number(environment, "MASTER_PORT") if "MASTER_PORT" in environment else _default_port(environment)
    ours = "CUFRAME_STORE_TOKEN" in environment and "CUFRAME_RUN_ID" in environment
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and not ours:
        port += 1  # torchrun's agent itself listens at MASTER_PORT
    host = environment.get("MASTER_ADDR") or "127.0.0.1"
    return Job(rank, world_size, local_rank, host, port, rank == 0 and not ours, launcher)


def _number(environment: Mapping[str, str], key: str) -> int:
    text = environment[key]
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"init_process_group: {key} must be a number, got {text!r}")
    return int(text)


def _default_port(environment: Mapping[str, str]) -> int:
    """The same for all ranks of a job, and different for most jobs on a host."""
    for key in ("SLURM_JOB_ID", "OMPI_MCA_ess_base_jobid", "PMIX_NAMESPACE"):
        if key in environment:
            digest = hashlib.sha256(environment[key].encode()).digest()
            return 20000 + int.from_bytes(digest[:4], "big") % 10000
    return _DEFAULT_PORT


def job_token(environment: Mapping[str, str], host: str, port: int) -> bytes:
    """The job's secret: `CUFRAME_STORE_TOKEN`, else made from the user's key and the store's address.

    The user's key is a file in cuframe's cache folder that only the user can read. So a launcher that knows nothing
    of cuframe still gives its ranks a common secret, on all hosts that share the home folder.
    """
    given = environment.get("CUFRAME_STORE_TOKEN")
    if given:
        return given.encode()
    return hmac.digest(_user_key(), f"{host}:{port}".encode(), "sha256")


def _user_key() -> bytes:
    path = cache_dir() / "store.key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"store.key.{os.urandom(6).hex()}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(os.urandom(32))
        try:
            os.link(temporary, path)  # the first of several wins, and the file is whole when it appears
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_bytes()
