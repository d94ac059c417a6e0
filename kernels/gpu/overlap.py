"""Lets a kernel begin while the one before it on the stream comes to its end: programmatic dependent launch, of Hopper and later.

A kernel that is launched so takes the places that become free, may read what never changes, such as weights, and then waits
until all the kernels before it are done. It must wait in every program before it touches anything else, because a kernel after
it counts on that. `EARLY` is a kernel's flag for being launched so.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

HOPPER = (9, 0)


class Switch:
    """For measuring what it is worth; looked at when a kernel is launched or captured."""

    on = True


def overlap(x: torch.Tensor) -> dict[str, bool]:
    """What a launch of a kernel with an `EARLY` flag is given, for tensors where `x` is."""
    return {"EARLY": True, "launch_pdl": True} if possible(x) else {"EARLY": False}


def possible(x: torch.Tensor) -> bool:
    """Whether kernels on tensors where `x` is can be launched so."""
    return Switch.on and _is_new_enough(x.device)


@cache
def _is_new_enough(device: torch.device) -> bool:
    if triton.knobs.runtime.interpret:
        return False
    # Without a GPU a launch only compiles, for a Hopper.
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= HOPPER


@triton.jit
def let_next_begin(EARLY: tl.constexpr):
    """The next kernel may come into places that this one leaves free."""
    if EARLY:
        gdc_launch_dependents()


@triton.jit
def wait(EARLY: tl.constexpr):
    """Until all kernels before this one are done; and the next one may come."""
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def fetch_ahead(pointers, BYTES: tl.constexpr):
    """Has so many bytes behind each pointer brought into L2; both must be multiples of 16."""
    tl.inline_asm_elementwise(
        "cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0;",
        "=r,l,r",
        [pointers.to(tl.int64), tl.full(pointers.shape, BYTES, tl.int32)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
