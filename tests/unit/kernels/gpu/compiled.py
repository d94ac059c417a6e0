"""Compiles what launchers launch, for a GPU that need not be here: `conftest.py` runs this as a process of its own.

Tests run in Triton's interpreter, and what was defined for it cannot be compiled. So here a driver pretends that there is an
H100, and a launch compiles, but does not run. Reads one launch a line, and answers with what it compiled to.
"""

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

COUNTED = {
    "wgmma": r"HGMMA",
    "mma": r"\b[HI]MMA",
    "tma_loads": r"UTMALDG",
    "async_copies_16b": r"LDGSTS\S*\.128",
    "spills": r"\b(?:LDL|STL)",
}


class PretendedDriver:
    """As much of a driver as compiling asks for."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def found(kernel: CompiledKernel) -> dict[str, str | int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        said = subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, "-sass", "-res-usage", file.name],
            capture_output=True, text=True, timeout=100, check=True,
        ).stdout  # fmt: skip
    registers = re.search(r"REG:(\d+)", said)
    assert registers is not None, said[:1000]
    counts = {name: len(re.findall(pattern, said)) for name, pattern in COUNTED.items()}
    return {
        "name": kernel.metadata.name,
        "registers": int(registers[1]),
        "shared_bytes": kernel.metadata.shared,
        **counts,
    }


@cache
def module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def main() -> None:
    kernels: list[CompiledKernel] = []
    run = JITFunction.run

    def compile_only(self: JITFunction, *args: object, warmup: bool, **options: object) -> None:
        kernels.append(run(self, *args, warmup=True, **options))

    JITFunction.run = compile_only
    driver.set_active(PretendedDriver())
    for line in sys.stdin:
        path, launch, arguments = json.loads(line)
        kernels.clear()
        getattr(module(path), launch)(*arguments)
        print(json.dumps([found(kernel) for kernel in kernels]), flush=True)


if __name__ == "__main__":
    main()
