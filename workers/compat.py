"""The compatibility key: two workers may exchange KV if and only if theirs are equal.

It covers everything the bytes of a block depend on: protocol, model configuration, weights, type and block geometry.
Knows files and bytes, not models.
"""

import json
from pathlib import Path

from blake3 import blake3

from tercet.wire import PROTOCOL_VERSION
from tercet.workers.kv_pool import KvGeometry

WEIGHT_PATTERNS = ("*.safetensors", "*.bin")
SAMPLES_PER_FILE = 64
SAMPLE_BYTES = 4096
HEADER_BYTES_MAX = 1 << 20
VOLATILE_KEYS = ("_name_or_path", "transformers_version", "architectures")


def compat_key(checkpoint: Path, model_config: dict[str, object], geometry: KvGeometry) -> str:
    """32 hex digits. Weights are told apart by their headers and by samples spread over each file, so that a
    fine-tuned sibling of the same shape gets another key without reading gigabytes."""
    kept = {key: value for key, value in model_config.items() if key not in VOLATILE_KEYS}
    hasher = blake3(f"tercet/compat/{PROTOCOL_VERSION}".encode())
    for part in (
        json.dumps(kept, sort_keys=True, default=str).encode(),
        repr(geometry).encode(),
        *(
            _fingerprint(path)
            for pattern in WEIGHT_PATTERNS
            for path in sorted(checkpoint.glob(pattern))
        ),
    ):
        hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.hexdigest()[:32]


def _fingerprint(path: Path) -> bytes:
    size = path.stat().st_size
    hasher = blake3(path.name.encode() + size.to_bytes(8, "little"))
    with path.open("rb") as file:
        hasher.update(file.read(HEADER_BYTES_MAX))
        for sample in range(SAMPLES_PER_FILE):
            file.seek(size * sample // SAMPLES_PER_FILE)
            hasher.update(file.read(SAMPLE_BYTES))
    return hasher.digest()
