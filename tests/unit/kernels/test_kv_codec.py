"""Packed KV keeps what its codes promise, and every kernel makes the same codes as the twin."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tercet.kernels.kv_codec import KvCodec, NativeKvCodec, best_kv_codec
from tercet.kernels.packed_kv import Codes, packed_bytes
from tercet.kernels.reference import ReferenceKvCodec

SHAPES = [(7, 4, 64), (5, 3, 33), (6, 2, 1), (9, 1, 1000)]


def pages(shape: tuple[int, int, int], dtype: torch.dtype) -> torch.Tensor:
    """Groups of very unlike size, one of zeros, one whose elements differ by factors of a million."""
    torch.manual_seed(3)
    blocks, groups, _ = shape
    x = torch.randn(shape) * torch.logspace(-6, 4, blocks * groups).view(blocks, groups, 1)
    x[1, 0] = 0
    x[2, 0] *= torch.logspace(-6, 0, shape[2])
    return x.to(dtype)


def through(
    codec: KvCodec, source: torch.Tensor, codes: Codes
) -> tuple[torch.Tensor, torch.Tensor]:
    """Packed blocks 4, 1, 2, and a pool they were unpacked into as blocks 0, 3, 2."""
    _, groups, elements = source.shape
    packed = torch.full((3, packed_bytes(groups, elements)), 255, dtype=torch.uint8)
    codec.pack(source, torch.tensor([4, 1, 2]), packed, codes)
    target = torch.full_like(source, 7)
    codec.unpack(target, torch.tensor([0, 3, 2]), packed, codes)
    return packed, target


@pytest.mark.parametrize("codes", Codes)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_of_every_element_is_within_its_codes_bound(shape, dtype, codes):
    source = pages(shape, dtype)
    _, target = through(best_kv_codec(torch.device("cpu"), dtype), source, codes)
    x, y = source[[4, 1, 2]].double(), target[[0, 3, 2]].double()
    most = x.abs().amax(-1, keepdim=True)
    bound = most / 254 if codes is Codes.INT8 else torch.maximum(x.abs() / 16, most / 458_752)
    rounding = x.abs() * (2**-8 if dtype is torch.bfloat16 else 2**-20) + most * 2**-20
    assert ((x - y).abs() <= bound * 1.0001 + rounding).all()
    assert (target[[1, 4]] == 7).all(), "other blocks were written"


@pytest.mark.parametrize("codes", Codes)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_makes_the_twins_codes(shape, dtype, codes):
    source = pages(shape, dtype)
    mine, theirs = (
        through(codec, source, codes) for codec in (NativeKvCodec(dtype), ReferenceKvCodec())
    )
    assert torch.equal(mine[0], theirs[0])
    assert torch.equal(mine[1], theirs[1])


@pytest.mark.parametrize("codes", Codes)
def test_every_code_survives_the_round_trip(codes):
    """What was packed once is packed without further loss: the codes are fixed points."""
    values = torch.arange(256, dtype=torch.uint8).view(torch.int8).float()
    if codes is Codes.FP8:
        values = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    values = values[values.isfinite() & (values.abs() <= codes.largest)].view(1, 1, -1)
    packed = torch.empty((1, packed_bytes(1, values.shape[2])), dtype=torch.uint8)
    codec, target = NativeKvCodec(torch.float32), torch.empty_like(values)
    codec.pack(values, torch.tensor([0]), packed, codes)
    codec.unpack(target, torch.tensor([0]), packed, codes)
    torch.testing.assert_close(target, values, rtol=1e-6, atol=0)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is for Linux")
@pytest.mark.parametrize(
    ("script", "environment", "says"),
    [
        ("interpreted_kv_codec.py", {"TRITON_INTERPRET": "1"}, "12 alike"),
        (
            "compiled_kv_codec.py",
            {"TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"},
            "36 compiled",
        ),
    ],
)
def test_the_gpu_kernel_makes_the_twins_codes_and_compiles(script, environment, says):
    # Whether a kernel is interpreted is decided when it is defined, so each has a process of its own.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name(script))],
        env={**os.environ, **environment},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == says
