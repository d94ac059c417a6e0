"""KV blocks packed to one byte an element, and back: half of bf16, a quarter of fp32, for links slower than the packing.

Legend: see `packed_kv`. The plain-torch twins are `reference.pack_kv` and `reference.unpack_kv`; `kv_codec.cpp` holds the kernel for CPUs,
`kv_codec_triton.py` the one for GPUs.
"""

import ctypes
import logging
from pathlib import Path
from typing import Protocol

import torch

from tercet.kernels.compiler import CompilerUnavailable, load_library
from tercet.kernels.packed_kv import Codes, check
from tercet.kernels.reference import ReferenceKvCodec

SOURCE = Path(__file__).with_name("kv_codec.cpp")
NAMES = {torch.float32: "f32", torch.bfloat16: "bf16"}

log = logging.getLogger(__name__)


class KvCodec(Protocol):
    """Packs blocks of a pool, and writes packed blocks into a pool; both in the order of `blocks_N`."""

    def pack(
        self, pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor, codes: Codes
    ) -> None: ...

    def unpack(
        self, pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor, codes: Codes
    ) -> None: ...


def best_kv_codec(device: torch.device, dtype: torch.dtype) -> KvCodec:
    """Triton on a GPU, C++ on a CPU where it can be built, else the twin."""
    if device.type == "cuda":
        from tercet.kernels.kv_codec_triton import TritonKvCodec  # noqa: PLC0415 -- GPUs only

        return TritonKvCodec()
    if dtype in NAMES:
        try:
            return NativeKvCodec(dtype)
        except CompilerUnavailable as exc:
            log.warning("KV is packed in plain torch, several times slower: %s", exc)
    return ReferenceKvCodec()


class NativeKvCodec:
    """The C++ kernel for one element type, on one thread. Raises CompilerUnavailable when it cannot be built."""

    def __init__(self, dtype: torch.dtype, cache: Path | None = None) -> None:
        self.dtype = dtype
        library = load_library(SOURCE, cache)
        self._pack = getattr(library, f"tercet_kv_pack_{NAMES[dtype]}")
        self._unpack = getattr(library, f"tercet_kv_unpack_{NAMES[dtype]}")
        for kernel in (self._pack, self._unpack):
            kernel.restype = None
            kernel.argtypes = [*[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 4, ctypes.c_int32]

    def pack(
        self, pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor, codes: Codes
    ) -> None:
        self._run(self._pack, pages_BGE, blocks_N, packed_NX, codes)

    def unpack(
        self, pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor, codes: Codes
    ) -> None:
        self._run(self._unpack, pages_BGE, blocks_N, packed_NX, codes)

    def _run(
        self,
        kernel: "ctypes._NamedFuncPointer",
        pages_BGE: torch.Tensor,
        blocks_N: torch.Tensor,
        packed_NX: torch.Tensor,
        codes: Codes,
    ) -> None:
        groups, elements = check(pages_BGE, blocks_N, packed_NX)
        assert pages_BGE.dtype == self.dtype, pages_BGE.dtype
        kernel(
            pages_BGE.data_ptr(),
            blocks_N.data_ptr(),
            packed_NX.data_ptr(),
            len(blocks_N),
            groups,
            elements,
            packed_NX.stride(0),
            int(codes),
        )
