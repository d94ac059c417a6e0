"""How rows are to be drawn, as the device's sampler reads it.

Legend: R rows.
"""

from collections.abc import Sequence

import numpy as np
import torch

from tercet.kernels.gpu.token_shape import SamplingRows
from tercet.request import Sampling

_LOWEST_64 = (1 << 64) - 1


def draw_rows(rows: int, device: torch.device) -> SamplingRows:
    """Memory for so many greedy rows."""

    def filled(value: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.full((rows,), value, dtype=dtype, device=device)

    return SamplingRows(
        temperature_R=filled(0, torch.float32),
        top_k_R=filled(0, torch.int32),
        top_p_R=filled(1, torch.float64),
        min_p_R=filled(0, torch.float32),
        repetition_R=filled(1, torch.float32),
        presence_R=filled(0, torch.float32),
        frequency_R=filled(0, torch.float32),
        seed_R=filled(0, torch.int64),
        position_R=filled(0, torch.int64),
        slot_R=filled(-1, torch.int32),
    )


def first(rows: SamplingRows, count: int, position_R: torch.Tensor) -> SamplingRows:
    """The first of them, whose tokens get these positions."""
    return SamplingRows(
        rows.temperature_R[:count],
        rows.top_k_R[:count],
        rows.top_p_R[:count],
        rows.min_p_R[:count],
        rows.repetition_R[:count],
        rows.presence_R[:count],
        rows.frequency_R[:count],
        rows.seed_R[:count],
        position_R,
        rows.slot_R[:count],
    )


def write(rows: SamplingRows, samplings: Sequence[Sampling]) -> None:
    """Into the first rows; only what an unshaped draw depends on."""
    count = len(samplings)
    seeds = np.array([s.seed & _LOWEST_64 for s in samplings], dtype=np.uint64)
    columns = (
        (rows.temperature_R, np.array([s.temperature for s in samplings], dtype=np.float32)),
        (rows.top_k_R, np.array([s.top_k for s in samplings], dtype=np.int32)),
        (rows.top_p_R, np.array([s.top_p for s in samplings], dtype=np.float64)),
        (rows.min_p_R, np.array([s.min_p for s in samplings], dtype=np.float32)),
        (rows.seed_R, seeds.view(np.int64)),
    )
    for column, values in columns:
        column[:count].copy_(upload(values, column.device))


def upload(values: np.typing.NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """On the device, without waiting for it."""
    tensor = torch.from_numpy(values)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)
