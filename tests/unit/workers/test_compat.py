from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tercet.workers.compat import compat_key
from tercet.workers.kv_pool import KvGeometry

GEOMETRY = KvGeometry(layers=2, kv_heads=2, head_dim=16, block_tokens=16, dtype=torch.float32)
CONFIG: dict[str, object] = {"model_type": "llama", "rope_theta": 1e4, "_name_or_path": "/here"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 16384)
    return tmp_path


def test_keys_are_equal_for_equal_checkpoints_wherever_they_lie(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    weights = (checkpoint / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(weights)
    moved = CONFIG | {"_name_or_path": "/there"}
    assert compat_key(checkpoint, CONFIG, GEOMETRY) == compat_key(other, moved, GEOMETRY)


@pytest.mark.parametrize(
    "geometry",
    [
        replace(GEOMETRY, block_tokens=32),
        replace(GEOMETRY, dtype=torch.bfloat16),
        replace(GEOMETRY, kv_heads=1),
        replace(GEOMETRY, layers=3),
    ],
)
def test_another_geometry_gives_another_key(checkpoint: Path, geometry: KvGeometry) -> None:
    assert compat_key(checkpoint, CONFIG, geometry) != compat_key(checkpoint, CONFIG, GEOMETRY)


def test_another_configuration_gives_another_key(checkpoint: Path) -> None:
    before = compat_key(checkpoint, CONFIG, GEOMETRY)
    assert compat_key(checkpoint, CONFIG | {"rope_theta": 2e4}, GEOMETRY) != before


def test_other_weights_of_the_same_shape_give_another_key(checkpoint: Path) -> None:
    before = compat_key(checkpoint, CONFIG, GEOMETRY)
    weights = bytearray((checkpoint / "model.safetensors").read_bytes())
    tuned = bytes((byte + 1) % 256 for byte in weights[2**21 :])  # the second half was tuned
    (checkpoint / "model.safetensors").write_bytes(weights[: 2**21] + tuned)
    assert compat_key(checkpoint, CONFIG, GEOMETRY) != before
