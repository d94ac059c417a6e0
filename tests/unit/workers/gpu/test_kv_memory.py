"""KV gets what is left, and a GPU that is too small says so."""

import pytest

from tercet.errors import ModelUnsupported
from tercet.workers.gpu.kv_memory import DeviceMemory, blocks_that_fit

GIB = 2**30


def test_kv_gets_what_the_share_leaves() -> None:
    memory = DeviceMemory(total=100 * GIB, others=2 * GIB, peak=20 * GIB)
    assert blocks_that_fit(memory, 0.9, GIB // 4, context_blocks=10) == 4 * (90 - 22)


@pytest.mark.parametrize("peak", [70, 300])
def test_a_gpu_without_room_for_one_context_is_refused(peak: int) -> None:
    memory = DeviceMemory(total=100 * GIB, others=10 * GIB, peak=peak * GIB)
    with pytest.raises(ModelUnsupported, match=r"one context needs 100.*memory_share"):
        blocks_that_fit(memory, 0.9, GIB // 4, context_blocks=100)
