"""What `kernels.py` measures: the shapes of Llama-3.1-8B on one GPU, and tiny ones for a dry run."""

import torch

from gpu_measure import Machine

HEADS, KV_HEADS, DIM, PAGE = 32, 8, 128, 64


class Sizes:
    """What is measured, and the tiny form of it for a dry run."""

    def __init__(self, machine: Machine) -> None:
        dry = machine.dry
        self.dtype = torch.float32 if dry else torch.bfloat16
        self.heads, self.kv_heads, self.dim = (2, 1, 16) if dry else (HEADS, KV_HEADS, DIM)
        self.page = 16 if dry else PAGE
        self.read_bytes = 2**20 if dry else 8 * 2**30
        self.square = 64 if dry else 8192
        self.layers = {"tiny": (64, 32)} if dry else {
            "qkv 6144x4096": (6144, 4096), "o 4096x4096": (4096, 4096),
            "gate_up 28672x4096": (28672, 4096), "down 4096x14336": (4096, 14336),
        }  # fmt: skip
        self.rows = (1, 8) if dry else (1, 8, 32, 64, 128, 256, 4096)
        self.decode = {"2 x 40": [40] * 2, "skew 1 x 70 + 2 x 5": [70, 5, 5]} if dry else {
            "1 x 1k": [1024], "1 x 8k": [8192], "1 x 32k": [32768], "8 x 4k": [4096] * 8,
            "32 x 1k": [1024] * 32, "32 x 4k": [4096] * 32, "64 x 4k": [4096] * 64,
            "128 x 4k": [4096] * 128, "256 x 1k": [1024] * 256,
            "skew 1 x 64k + 15 x 4k": [65536] + [4096] * 15,
            "skew 32 x 128 + 32 x 4k": [128] * 32 + [4096] * 32,
        }  # fmt: skip
        self.prefill = {"1 x 20": (1, 0, 20), "1 x 5 on 16": (1, 16, 5)} if dry else {
            "1 x 1k": (1, 0, 1024), "1 x 2k": (1, 0, 2048), "1 x 4k": (1, 0, 4096),
            "1 x 8k": (1, 0, 8192), "1 x 16k": (1, 0, 16384), "4 x 4k": (4, 0, 4096),
            "2k on 8k": (1, 8192, 2048), "2k on 32k": (1, 32768, 2048),
        }  # fmt: skip
        self.fused_rows = (1, 3) if dry else (1, 128, 4096)
        self.vocab, self.sampled = (300, (2,)) if dry else (151936, (1, 128, 256))
        self.copied = (2**12,) if dry else (64 * 2**20, 2**30)


class Ceilings:
    """What the machine can do at most, measured before everything else."""

    read_tbs = copy_tbs = product_tf = 1.0


CEILING = Ceilings()


def normal(machine: Machine, *shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, device=machine.device, dtype=dtype)
