"""Compiles the GPU kernels for GPUs that need not be here."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tercet.kernels.kv_codec_triton import pack_kernel, unpack_kernel

compiled = 0
for target in (
    GPUTarget("cuda", 80, 32),
    GPUTarget("cuda", 90, 32),
    GPUTarget("hip", "gfx942", 64),
):
    for element in ("bf16", "fp16", "fp32"):
        for fp8 in (False, True):
            constants = {"E": 2048, "TILE": 2048, "FP8": fp8}
            signature = {
                "pages": f"*{element}", "blocks": "*i64", "packed": "*u8", "groups": "i32",
                "packed_stride": "i64",
            }  # fmt: skip
            for kernel, more in ((pack_kernel, {"INVERSE_LARGEST": 1 / 448}), (unpack_kernel, {})):
                constexprs = {**more, **constants}
                types = signature | dict.fromkeys(constexprs, "constexpr")
                triton.compile(ASTSource(kernel, types, constexprs), target=target)
                compiled += 1
print(compiled, "compiled")
