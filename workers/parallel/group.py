"""The ranks of one model, and the sum over all of them: gloo between processes on CPUs, NCCL between GPUs."""

from datetime import timedelta
from typing import Protocol

import torch
from torch import distributed
from torch._C._distributed_c10d import Store

HOST = "127.0.0.1"
"""Where ranks find each other: they are on one node, whose name need not mean anything."""
TIMEOUT_S = 120.0
"""Of one sum. A rank that has died is noticed at once; one that hangs, sooner by `control.step_timeout_s`."""


class _Work(Protocol):
    def wait(self) -> object: ...


class _Backend(Protocol):
    """What is used of a backend; used without `init_process_group`, which allows one group a process."""

    def allreduce(self, tensors: list[torch.Tensor]) -> _Work: ...


class Group:
    """One rank's view. Until it has joined the others it is alone, and sums are what it gives: so models are loaded."""

    def __init__(self, rank: int, ranks: int) -> None:
        assert 0 <= rank < ranks, (rank, ranks)
        self.rank, self.ranks = rank, ranks
        self._backend: _Backend | None = None

    def join(self, store: Store, device: torch.device) -> None:
        """Blocks until all ranks have done so."""
        self._backend = _nccl(store, self, device) if device.type == "cuda" else _gloo(store, self)

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """In place, over all ranks; every rank must call it with tensors of one shape, in the same order."""
        if self._backend is not None:
            self._backend.allreduce([x]).wait()
        return x


def _gloo(store: Store, group: Group) -> _Backend:
    options = distributed.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._devices = [distributed.ProcessGroupGloo.create_device(hostname=HOST)]
    options._timeout = timedelta(seconds=TIMEOUT_S)
    backend: _Backend = distributed.ProcessGroupGloo(store, group.rank, group.ranks, options)  # type: ignore[assignment]
    return backend


def _nccl(store: Store, group: Group, device: torch.device) -> _Backend:
    torch.cuda.set_device(device)
    options = distributed.ProcessGroupNCCL.Options()
    options._timeout = timedelta(seconds=TIMEOUT_S)
    backend: _Backend = distributed.ProcessGroupNCCL(store, group.rank, group.ranks, options)  # type: ignore[assignment]
    return backend
