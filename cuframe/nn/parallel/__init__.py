"""A model on several devices of one process (DataParallel) or in several processes (DistributedDataParallel)."""

from . import hooks
from .buckets import GradBucket
from .data_parallel import DataParallel, data_parallel
from .ddp import DistributedDataParallel
from .gather import gather
from .parallel_apply import parallel_apply
from .replicate import replicate
from .scatter import scatter

__all__ = [
    "DataParallel", "DistributedDataParallel", "GradBucket", "data_parallel", "gather", "hooks", "parallel_apply",
    "replicate", "scatter",
]  # fmt: skip
