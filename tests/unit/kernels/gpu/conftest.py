"""What a launcher's kernels compile to on an H100, told without one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SHARED_BYTES_MAX = 227 * 1024
"""What one program may have on an H100 or H200."""


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
