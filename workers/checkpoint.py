"""Opens a Hugging Face checkpoint directory and decides whether it can be served.

A family works if all its layers attend through transformers' attention interface, once each, causally, with one shape of
keys and values. Everything else is refused here, with the reason, before a single request is taken. Nothing is fetched.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from tercet.config import ModelConfig
from tercet.errors import ModelUnsupported
from tercet.workers.attention import (
    ATTENTION_NAME,
    Probe,
    Sighting,
    attention_everywhere,
    register_attention,
)
from tercet.workers.quantised.loading import keep_fp8, load_plain, read_weights
from tercet.workers.quantised.registry import Settings, layout_of, settings_of

SERVABLE_LAYERS = {"full_attention", "sliding_attention"}
LENGTH_DEPENDENT_ROPES = {"dynamic", "longrope"}
"""Their frequencies change with the longest sequence of a batch; up to the original length they do not."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model, still with its own eager attention, and what its files say about it."""

    path: Path
    model: PreTrainedModel
    config: PreTrainedConfig
    """Of the language model, where there are others beside it."""
    eos_token_ids: frozenset[int]
    context_tokens_max: int
    quantised: Settings | None = None
    """How its weights are stored, if not plainly."""
    rounds_inputs: bool = False
    """Layers round their inputs to 8-bit floats."""

    @property
    def described(self) -> dict[str, object]:
        """All that decides what is computed, but for the weights themselves."""
        described: dict[str, object] = self.config.to_dict()
        if self.quantised is not None:
            described |= {"quantised": self.quantised, "rounds_inputs": self.rounds_inputs}
        return described


def open_checkpoint(model: ModelConfig, *, fp8_stays: bool = False) -> Checkpoint:
    """Loads configuration and weights onto the device. Raises ModelUnsupported.

    Quantised weights become plain ones of the model's type, but linear layers of 8-bit floats if those are to stay.
    """
    path = Path(model.path)
    if not (path / "config.json").is_file():
        raise ModelUnsupported(f"{path} is not a checkpoint directory: it has no config.json")
    try:
        whole = AutoConfig.from_pretrained(path, local_files_only=True)
        check_config(whole)
        loaded = _load(path, whole, getattr(torch, model.dtype), fp8_stays)
    except (OSError, ValueError, KeyError, ImportError) as exc:
        raise ModelUnsupported(f"{path} cannot be loaded: {exc}") from exc
    if "logits_to_keep" not in inspect.signature(loaded.model.forward).parameters:
        raise ModelUnsupported(f"{whole.model_type} cannot leave out logits that nobody needs")
    text = loaded.model.config.get_text_config(decoder=True)
    return Checkpoint(
        path=path,
        model=loaded.model.eval().requires_grad_(False).to(model.device),
        config=text,
        eos_token_ids=_eos_token_ids(loaded.model),
        context_tokens_max=_context_tokens_max(text, model.context_tokens_max),
        quantised=loaded.quantised,
        rounds_inputs=loaded.rounds_inputs,
    )


def check_config(config: PreTrainedConfig) -> None:
    """Refuses families that are known by their configuration to be out of reach. Raises ModelUnsupported."""
    text = config.get_text_config(decoder=True)
    if config.is_encoder_decoder:
        raise ModelUnsupported(f"{config.model_type} is an encoder-decoder model")
    if getattr(text, "add_cross_attention", False):
        raise ModelUnsupported(f"{text.model_type} has cross attention")
    others = set(getattr(text, "layer_types", None) or ()) - SERVABLE_LAYERS
    if others:
        raise ModelUnsupported(
            f"{text.model_type} has layers whose state is not paged: {', '.join(sorted(others))}"
        )
    if not getattr(text, "is_causal", True) or getattr(text, "use_bidirectional_attention", False):
        raise ModelUnsupported(f"{text.model_type} attends in both directions")


@torch.inference_mode()
def eager_logits(model: PreTrainedModel, tokens: list[int], rows: list[int]) -> torch.Tensor:
    """The model's own answer, with no cache: fp32 logits `[len(rows), vocabulary]` after the tokens at `rows`."""
    assert model.config._attn_implementation == "eager", model.config._attn_implementation
    ids = torch.tensor([tokens], device=model.device)
    keep = torch.tensor(rows, device=model.device)
    logits: torch.Tensor = model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits
    return logits[0].float()


@torch.inference_mode()
def find_attention_layers(model: PreTrainedModel, config: PreTrainedConfig) -> list[Sighting]:
    """Switches the model to our attention; returns its attention modules in the order they run.

    Raises ModelUnsupported where one layer does not attend exactly once, or not as its configuration says.
    """
    register_attention()
    try:
        model.set_attn_implementation(ATTENTION_NAME)
    except (ValueError, KeyError, ImportError) as exc:
        raise ModelUnsupported(f"{config.model_type} refuses other attention: {exc}") from exc
    if config._attn_implementation != ATTENTION_NAME:
        raise ModelUnsupported(f"{config.model_type} does not use the attention interface")
    probe, one = Probe(), torch.zeros((1, 1), dtype=torch.long, device=model.device)
    with attention_everywhere(model, probe):
        model(input_ids=one, position_ids=one, use_cache=False)
    _check_sightings(probe.sightings, config)
    return probe.sightings


class _Loaded(NamedTuple):
    model: PreTrainedModel
    quantised: Settings | None
    rounds_inputs: bool


def _load(path: Path, config: PreTrainedConfig, dtype: torch.dtype, fp8_stays: bool) -> _Loaded:
    quantised = settings_of(config, path)
    with _quietly():
        if quantised is None:
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                path, config=config, dtype=dtype, attn_implementation="eager", local_files_only=True
            )
            return _Loaded(model, None, rounds_inputs=False)
        weights = read_weights(path, layout_of(quantised), dtype)
        model = load_plain(path, config, dtype, weights.plain)
    return _Loaded(model, quantised, fp8_stays and keep_fp8(model, weights.fp8))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' progress bar, which would fill a worker's log with fragments of a line."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _check_sightings(sightings: list[Sighting], config: PreTrainedConfig) -> None:
    name, layers = config.model_type, config.num_hidden_layers
    modules: list[nn.Module] = [sighting.module for sighting in sightings]
    if len(modules) != layers or len(set(map(id, modules))) != layers:
        raise ModelUnsupported(
            f"{name} has {layers} layers, of which {len(set(map(id, modules)))} attend through the "
            f"attention interface, {len(modules)} times in all"
        )
    if any(getattr(module, "is_causal", True) is False for module in modules):
        raise ModelUnsupported(f"{name} has attention that is not causal")
    shapes = {
        (s.key_shape[1], s.key_shape[3], s.value_shape[1], s.value_shape[3]) for s in sightings
    }
    if len(shapes) > 1:
        raise ModelUnsupported(f"{name} has layers with unlike keys and values: {sorted(shapes)}")
    ((key_heads, key_dim, value_heads, value_dim),) = shapes
    if (key_heads, key_dim) != (value_heads, value_dim):
        raise ModelUnsupported(f"{name} has keys of {key_dim} and values of {value_dim} dimensions")
    for index, sighting in enumerate(sightings):
        _check_window(sighting, index, config)


def _check_window(sighting: Sighting, index: int, config: PreTrainedConfig) -> None:
    """A layer that slides by a mask alone would see too much here, where there is no mask."""
    layer_types = getattr(config, "layer_types", None)
    if layer_types is None:
        return
    expected = config.sliding_window if layer_types[index] == "sliding_attention" else 0
    if sighting.rule.window != expected:
        raise ModelUnsupported(
            f"{config.model_type} hides its sliding window of {expected} from the attention "
            f"interface in layer {index} (it says {sighting.rule.window})"
        )


def _eos_token_ids(model: PreTrainedModel) -> frozenset[int]:
    """What ends a generation: the generation settings decide, the model's configuration where they are silent."""
    for source in (model.generation_config, model.config.get_text_config(decoder=True)):
        ids = getattr(source, "eos_token_id", None)
        if ids is not None:
            return frozenset([ids] if isinstance(ids, int) else ids)
    return frozenset()


def _context_tokens_max(config: PreTrainedConfig, wanted: int) -> int:
    """The longest sequence that is computed exactly. Raises ModelUnsupported if more is wanted."""
    limit = int(config.max_position_embeddings)
    rope = getattr(config, "rope_parameters", None) or {}
    for settings in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if settings.get("rope_type") in LENGTH_DEPENDENT_ROPES:
            limit = min(limit, int(settings.get("original_max_position_embeddings", limit)))
    if wanted > limit:
        raise ModelUnsupported(
            f"context_tokens_max is {wanted}, but {limit} is this checkpoint's limit"
        )
    return wanted or limit
