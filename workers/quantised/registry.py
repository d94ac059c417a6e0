"""Which layout a checkpoint has, by the `quant_method` of its configuration."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from transformers import PreTrainedConfig

from tercet.errors import ModelUnsupported
from tercet.workers.quantised.fp8_layout import Fp8Layout
from tercet.workers.quantised.gptq_layout import GptqLayout
from tercet.workers.quantised.layout import Layout

Settings = Mapping[str, object]
MODELOPT_FILE = "hf_quant_config.json"


def settings_of(config: PreTrainedConfig, path: Path) -> Settings | None:
    """What says how weights are quantised; None if they are not. Raises ModelUnsupported if it stands elsewhere."""
    for each in (config, config.get_text_config(decoder=True)):
        settings = getattr(each, "quantization_config", None)
        if settings:
            return cast(Settings, settings if isinstance(settings, dict) else settings.to_dict())
    if (path / MODELOPT_FILE).is_file():
        raise ModelUnsupported(
            f"{path} is quantised by {MODELOPT_FILE} alone; {', '.join(LAYOUTS)} can be read from"
            " quantization_config in config.json"
        )
    return None


def layout_of(settings: Settings) -> Layout:
    """Raises ModelUnsupported for what cannot be read, and ValueError for settings that make no sense."""
    method = str(settings.get("quant_method"))
    if method not in LAYOUTS:
        raise ModelUnsupported(
            f"its quantization_config.quant_method is {method!r}; {', '.join(LAYOUTS)} can be read;"
            " serve the unquantised model, or quantise it with one of these"
        )
    try:
        return LAYOUTS[method](settings)
    except ImportError as exc:
        raise ModelUnsupported(f"{method} needs compressed-tensors installed: {exc}") from exc


def _fp8(settings: Settings) -> Layout:
    return Fp8Layout(cast(list[int] | None, settings.get("weight_block_size")))


def _compressed(settings: Settings) -> Layout:
    from tercet.workers.quantised.compressed_layout import CompressedLayout  # noqa: PLC0415

    return CompressedLayout(settings)


def _awq(settings: Settings) -> Layout:
    from tercet.workers.quantised.awq_layout import AwqLayout  # noqa: PLC0415

    return AwqLayout(settings)


LAYOUTS: dict[str, Callable[[Settings], Layout]] = {
    "compressed-tensors": _compressed,
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "awq": _awq,
    "gptq": GptqLayout,
}
"""Two of them import a library that no other checkpoint needs."""
