"""The ranks of one model, and the sum over all of them: through shared memory on a CPU, by NCCL between GPUs."""

from collections.abc import Callable
from datetime import timedelta

import torch
from torch import distributed
from torch._C._distributed_c10d import TCPStore

HOST = "127.0.0.1"
"""Where GPUs' ranks find each other: they are on one node, whose name need not mean anything."""
NCCL_WAIT_S = 120.0

Add = Callable[[torch.Tensor], torch.Tensor]
"""Sums a tensor over all ranks, in place, and returns it."""


class Group:
    """One rank's view. Until it has joined the others it is alone, and sums are what it gives: so models are loaded."""

    def __init__(self, rank: int, ranks: int) -> None:
        assert 0 <= rank < ranks, (rank, ranks)
        self.rank, self.ranks = rank, ranks
        self.sum: Add = _alone
        """Every rank must call it with tensors of one shape, in the same order."""

    def join(self, add: Add) -> None:
        """From now on sums are those of all ranks."""
        self.sum = add


def rendezvous(ranks: int) -> TCPStore:
    """Where the others will find rank 0, at the store's port."""
    return TCPStore(HOST, 0, ranks, is_master=True, wait_for_workers=False)


def nccl_sum(store: TCPStore, group: Group, device: torch.device) -> Add:
    """Blocks until all ranks have called it. The process needs no default group, of which there can be only one."""
    torch.cuda.set_device(device)
    options = distributed.ProcessGroupNCCL.Options()
    options._timeout = timedelta(seconds=NCCL_WAIT_S)
    backend = distributed.ProcessGroupNCCL(store, group.rank, group.ranks, options)

    def add(x: torch.Tensor) -> torch.Tensor:
        backend.allreduce([x]).wait()  # type: ignore[attr-defined]
        return x

    return add


def _alone(x: torch.Tensor) -> torch.Tensor:
    return x
