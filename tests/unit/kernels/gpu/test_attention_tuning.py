"""What ships is usable: every entry of every table, for every shape it is chosen for."""

from pathlib import Path

import msgspec
import pytest
import torch

from tercet.kernels.gpu.attention_tuning import FOLDER, Table, attention_tuning

TABLES = sorted(FOLDER.glob("*.json"))


@pytest.mark.parametrize("path", TABLES, ids=[path.stem for path in TABLES])
def test_every_table_can_be_used(path: Path) -> None:
    table = msgspec.json.decode(path.read_bytes(), type=Table)
    for entry in table.attention:
        assert entry.decode.splits.least % entry.decode.tile == 0
        for prefill in (entry.chunk, entry.fresh):
            assert prefill.rows & (prefill.rows - 1) == 0
        assert entry.chunk.tile == entry.fresh.tile, "bits would depend on how a prompt is cut"
    names = [(entry.kv_bytes, entry.head_dim_max) for entry in table.attention]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("head_dim", "kv_bytes", "found"),
    [
        (64, 2, (64, 2)),
        (96, 2, (128, 2)),
        (128, 1, (128, 1)),
        (256, 2, (256, 2)),
        (64, 4, (256, 4)),
    ],
)
def test_the_entry_is_the_narrowest_that_fits(head_dim: int, kv_bytes: int, found) -> None:
    entry = attention_tuning(torch.device("cpu"), head_dim, kv_bytes)
    assert (entry.head_dim_max, entry.kv_bytes) == found
