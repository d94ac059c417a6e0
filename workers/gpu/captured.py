"""The same work again and again on the same memory: as a CUDA graph, or uncaptured where there is none."""

from collections.abc import Callable
from typing import Protocol

import torch


class Repeated(Protocol):
    """Enqueues the work, and returns the tensor it always returns its results in, or a new one."""

    def __call__(self) -> torch.Tensor: ...


class Eager:
    """Runs it as it stands."""

    def __init__(self, work: Callable[[], torch.Tensor]) -> None:
        self._work = work

    def __call__(self) -> torch.Tensor:
        return self._work()


class Captured:
    """Runs it once, so that everything is compiled and allocated, and records it. Graphs of one pool never run at once."""

    def __init__(self, work: Callable[[], torch.Tensor], pool: "GraphPool") -> None:
        work()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool.handle):
            self._result = work()

    def __call__(self) -> torch.Tensor:
        self._graph.replay()
        return self._result


class GraphPool:
    """Memory that graphs share."""

    def __init__(self) -> None:
        self.handle = torch.cuda.graph_pool_handle()
