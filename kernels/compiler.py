"""Turns a C++ source beside this file into a loaded shared library: compiled at first use, kept in the user's cache.

Compiling from source lets one wheel use the vector instructions of whatever machine it runs on. The file name carries a
hash of everything the result depends on, so that a home directory shared by unlike machines is safe. Knows no operation.
"""

import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

COMPILE_TIMEOUT_S = 120.0
FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-mprefer-vector-width=512",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
    "-fopenmp",
    "-fPIC",
    "-shared",
)
"""No -ffast-math: it would let the linker switch off denormal numbers for the whole process."""


class CompilerUnavailable(Exception):
    """There is no g++ here (the sources use its vector extensions), or it cannot compile for this machine; carries what it said."""


def load_library(source: Path, cache: Path | None = None) -> ctypes.CDLL:
    """The compiled `source`. Calls into it release the GIL.

    `cache` defaults to `$XDG_CACHE_HOME/tercet/kernels`. Raises CompilerUnavailable.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise CompilerUnavailable("no g++ on the path")
    folder = cache if cache is not None else default_cache()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    library = folder / f"{source.stem}-{_fingerprint(source, compiler)}.so"
    with (folder / f"{library.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers of one host start together; one compiles
        if not library.exists():
            _compile(compiler, source, library)
    return ctypes.CDLL(str(library))


def default_cache() -> Path:
    """Where libraries are kept between runs."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "tercet" / "kernels"


def _fingerprint(source: Path, compiler: str) -> str:
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, check=False, timeout=COMPILE_TIMEOUT_S
    )
    headers = (header.read_bytes() for header in sorted(source.parent.glob("*.h")))
    flags = " ".join(FLAGS).encode()
    parts = (source.read_bytes(), *headers, flags, version.stdout, _processor())
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:20]


def _processor() -> bytes:
    """What `-march=native` looks at, as far as it can be read."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return f"{platform.machine()} {platform.processor()}".encode()
    kept = ("flags", "Features", "vendor_id", "cpu family", "model\t")
    lines = cpuinfo.read_text().split("\n\n", 1)[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(kept)).encode()


def _compile(compiler: str, source: Path, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        result = Path(scratch) / library.name
        command = [compiler, *FLAGS, str(source), "-o", str(result)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=COMPILE_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as exc:
            raise CompilerUnavailable(f"{compiler} ran longer than {exc.timeout} s") from exc
        if done.returncode != 0:
            raise CompilerUnavailable(f"{compiler} failed: {done.stderr[-2000:]}")
        result.replace(library)
