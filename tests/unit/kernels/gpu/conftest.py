"""What a launcher's kernels compile to on an H100, told without one; and batches for attention."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.page_scales import PageScales
from tercet.kernels.paged_batch import PagedBatch
from tercet.kernels.softmax_rule import SoftmaxRule

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHARED_BYTES_MAX = 227 * 1024
"""What one program may have on an H100 or H200."""


@pytest.fixture
def on_device() -> Iterator[None]:
    """Tensors that a test makes are where kernels run: on a GPU where there is one."""
    with DEVICE:
        yield


@dataclass(frozen=True)
class Compiled:
    """Instructions are counted in the machine code, so one in a loop counts once."""

    name: str
    registers: int
    shared_bytes: int
    wgmma: int
    mma: int
    tma_loads: int
    async_copies_16b: int
    spills: int

    def check(self) -> None:
        """What holds for every kernel: it can be launched, and keeps its registers."""
        assert self.shared_bytes <= SHARED_BYTES_MAX, self
        assert self.spills == 0, self


Compile = Callable[..., list[Compiled]]


@pytest.fixture(scope="session")
def compiled() -> Iterator[Compile]:
    """`compiled(launch, *arguments)`: what is launched when `launch`, a function of a test file, is called with them.

    `arguments` are what JSON can carry. Tensors that are passed to kernels may be empty ones on the CPU.
    """
    process: subprocess.Popen[str] | None = None

    def compile_for_h100(launch: Callable[..., None], *arguments: object) -> list[Compiled]:
        nonlocal process
        process = process or subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("compiled.py"))],
            env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        call = [launch.__code__.co_filename, launch.__name__, arguments]
        process.stdin.write(json.dumps(call) + "\n")
        process.stdin.flush()
        said = process.stdout.readline()
        if not said:
            process.communicate(timeout=60)
            process = None
            pytest.fail(f"{launch.__name__}{arguments} does not compile; see stderr")
        return [Compiled(**kernel) for kernel in json.loads(said)]

    yield compile_for_h100
    if process is not None:
        process.communicate(timeout=60)


@dataclass
class Case:
    """A layer's input for a batch, and tensors for a kernel's and its twin's results."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    pages: torch.Tensor
    scales: PageScales | None
    host: PagedBatch
    batch: DeviceBatch
    rule: SoftmaxRule

    def outputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        one, other = torch.zeros(2, *self.q.shape, dtype=self.q.dtype, device=DEVICE)
        return one, other

    def alone(self, request: int) -> "Case":
        """The same case with one of its requests only."""
        run = slice(*self.host.query_starts[request : request + 2].tolist())
        one = slice(request, request + 1)
        host = PagedBatch.of(
            self.host.lengths[one].tolist(), self.host.contexts[one].tolist(),
            self.host.tables[one].tolist(), self.host.page_tokens,
        )  # fmt: skip
        rows = (x[run] for x in (self.q, self.k, self.v))
        batch = DeviceBatch.of(host, DEVICE)
        return Case(*rows, self.pages, self.scales, host, batch, self.rule)


@pytest.fixture(scope="session")
def make_case() -> Callable[..., Case]:
    def make(
        runs: list[tuple[int, int]], *, heads: int = 4, kv_heads: int = 2, dim: int = 16,
        page_tokens: int = 16, dtype: torch.dtype = torch.float32,
        codes: torch.dtype | None = None, scale: float | None = None, window: int = 0,
        softcap: float = 0.0, sinks: torch.Tensor | None = None,
    ) -> Case:  # fmt: skip
        """Requests are given as (tokens before, new rows). Pages are dealt at random, and hold a NaN wherever a kernel has
        no business; keys and values of the new rows are in their pages."""
        sinks = None if sinks is None else sinks.to(DEVICE)
        generator = torch.Generator().manual_seed(len(runs))

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        needed = [-(-(context + rows) // page_tokens) for context, rows in runs]
        blocks = sum(needed) + 2
        order = torch.randperm(blocks, generator=generator).tolist()
        tables = [[order.pop() for _ in range(count)] for count in needed]
        host = PagedBatch.of(
            [rows for _, rows in runs], [context for context, _ in runs], tables, page_tokens
        )
        pool = normal(blocks, 3, 2, kv_heads, page_tokens, dim)  # of three layers: pages are apart
        for (context, rows), table in zip(runs, tables, strict=True):
            used = (context + rows - 1) % page_tokens + 1
            pool[table[-1], :, :, :, used:] = torch.nan
        pool[order] = torch.nan
        scales = None
        if codes is not None:
            scales = PageScales(*(normal(2, kv_heads).abs() / 20).to(DEVICE))
            pool = (pool.nan_to_num(5) * 20).clamp(-127, 127)
        pages = pool.to(DEVICE, codes or dtype)[:, 1]
        total = host.rows
        row_pages = torch.from_numpy(host.row_pages).long().to(DEVICE)
        slots = torch.from_numpy(host.positions % page_tokens).long().to(DEVICE)
        k, v = (pages[row_pages, part, :, slots].to(dtype) for part in (0, 1))
        return Case(
            q=normal(heads, total, dim).transpose(0, 1).to(DEVICE, dtype),
            k=k, v=v, pages=pages, scales=scales, host=host,
            batch=DeviceBatch.of(host, DEVICE),
            rule=SoftmaxRule(dim**-0.5 if scale is None else scale, window, softcap, sinks),
        )  # fmt: skip

    return make
