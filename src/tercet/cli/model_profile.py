"""How fast workers are, from a file: written by hand, or what `tercet status --json` said of a cluster."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from tercet.cluster.status import ClusterStatus
from tercet.errors import OptionError
from tercet.latency import UNFITTED
from tercet.simulator import EngineModel

_OPTION = "--model-profile"
_HINT = "it holds prefill_coefficients and decode_coefficients, three seconds each, or what `tercet status --json` prints"

Seconds = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]


class ModelProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Coefficients as in `tercet.latency`. What is not given is that of the default model."""

    prefill_coefficients: tuple[Seconds, Seconds, Seconds]
    decode_coefficients: tuple[Seconds, Seconds, Seconds]
    kv_bytes_per_token: Annotated[int, Meta(gt=0)] | None = None
    bandwidth_bytes_per_s: Positive | None = None
    latency_s: Seconds | None = None
    noise: Seconds = 0.0
    """Relative standard deviation of a step's time."""


def model_of(path: Path | None, block_tokens: int) -> EngineModel:
    """The default model, or the one in a file; blocks of the cluster it was measured on had `block_tokens`."""
    if path is None:
        return EngineModel()
    try:
        profile = _profile(path.read_bytes(), block_tokens)
    except OSError as exc:
        reason = f"{path} cannot be read: {(exc.strerror or str(exc)).lower()}"
        raise OptionError(_OPTION, reason) from exc
    except msgspec.MsgspecError as exc:
        raise OptionError(_OPTION, f"{path}: {exc}", _HINT) from exc
    usual = EngineModel()
    return EngineModel(
        prefill=profile.prefill_coefficients,
        decode=profile.decode_coefficients,
        kv_bytes_per_token=profile.kv_bytes_per_token or usual.kv_bytes_per_token,
        bandwidth_bytes_per_s=profile.bandwidth_bytes_per_s or usual.bandwidth_bytes_per_s,
        latency_s=usual.latency_s if profile.latency_s is None else profile.latency_s,
        noise=profile.noise,
    )


def _profile(text: bytes, block_tokens: int) -> ModelProfile:
    if "workers" in msgspec.json.decode(text, type=dict[str, msgspec.Raw]):
        return _measured(msgspec.json.decode(text, type=ClusterStatus), block_tokens)
    return msgspec.json.decode(text, type=ModelProfile)


def _measured(status: ClusterStatus, block_tokens: int) -> ModelProfile:
    """By the first workers that have fitted themselves."""
    figures = [worker.figures.worker for worker in status.workers if worker.figures is not None]
    loads = [figure.load for figure in figures if figure is not None]
    fitted = [load.prefill_coefficients for load in loads if load.prefill_coefficients != UNFITTED]
    decodes = [load.decode_coefficients for load in loads if load.decode_coefficients != UNFITTED]
    if not (fitted and decodes):
        missing = "decode" if fitted else "prefill"
        hint = "send the cluster some dozens of requests first"
        raise OptionError(_OPTION, f"no worker has measured its {missing} steps yet", hint)
    return ModelProfile(
        prefill_coefficients=fitted[0],
        decode_coefficients=decodes[0],
        kv_bytes_per_token=max(load.block_bytes for load in loads) // block_tokens or None,
    )
