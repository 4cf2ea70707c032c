"""A model on several devices of one process (DataParallel) or in several processes (DistributedDataParallel)."""

from . import hooks
from .buckets import GradBucket
from .ddp import DistributedDataParallel

__all__ = ["DistributedDataParallel", "GradBucket", "hooks"]
