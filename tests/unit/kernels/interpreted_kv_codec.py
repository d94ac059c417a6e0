"""Run with TRITON_INTERPRET=1: packs and unpacks with the GPU kernels on the CPU and compares with the twin."""

import torch

from tercet.kernels.kv_codec_triton import TritonKvCodec
from tercet.kernels.packed_kv import Codes, packed_bytes
from tercet.kernels.reference import ReferenceKvCodec

cases = 0
for codes in Codes:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for shape in ((4, 3, 33), (3, 2, 64)):
            torch.manual_seed(3)
            source = (torch.randn(shape) * torch.logspace(-3, 3, shape[1])[:, None]).to(dtype)
            source[1, 0] = 0
            found = []
            for codec in (TritonKvCodec(), ReferenceKvCodec()):
                packed = torch.zeros((2, -(-packed_bytes(*shape[1:]) // 4) * 4), dtype=torch.uint8)
                packed = packed[:, : packed_bytes(*shape[1:])]
                target = torch.full_like(source, 7)
                codec.pack(source, torch.tensor([2, 1]), packed, codes)
                codec.unpack(target, torch.tensor([0, 1]), packed, codes)
                found.append((packed, target))
            torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=0)
            # The interpreter cuts bits off where a GPU rounds to bf16.
            rtol = 2**-7 if dtype is torch.bfloat16 else 0
            torch.testing.assert_close(found[0][1], found[1][1], rtol=rtol, atol=0)
            cases += 1
print(cases, "alike")
