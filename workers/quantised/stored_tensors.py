"""The tensors of a checkpoint's safetensors files, by the modules they belong to, read when they are asked for."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, cast

import torch
from safetensors import safe_open

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


class Reader(Protocol):
    """What of `safe_open`, which has no types, is used."""

    def keys(self) -> list[str]: ...

    def get_tensor(self, name: str) -> torch.Tensor: ...


class StoredTensors:
    """A context manager. Opening raises OSError where there are no such files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = ExitStack()
        self._readers: dict[str, Reader] = {}
        self._modules: dict[str, dict[str, str]] = defaultdict(dict)
        """For each module the file that each of its tensors is in."""

    def __enter__(self) -> "StoredTensors":
        for name, file in self._weight_map().items():
            module, _, parameter = name.rpartition(".")
            self._modules[module][parameter] = file
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def modules(self) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
        """Each module's name, and its own tensors by their names in it."""
        for module, files in self._modules.items():
            yield (
                module,
                {
                    parameter: self._reader(file).get_tensor(_joined(module, parameter))
                    for parameter, file in files.items()
                },
            )

    def _weight_map(self) -> dict[str, str]:
        index = self._path / INDEX
        if index.is_file():
            weight_map: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
            return weight_map
        if not (self._path / SINGLE).is_file():
            raise OSError(
                f"it has neither {SINGLE} nor {INDEX}, and quantised weights are read from those"
            )
        return dict.fromkeys(self._reader(SINGLE).keys(), SINGLE)

    def _reader(self, file: str) -> Reader:
        if file not in self._readers:
            opened = safe_open(self._path / file, framework="pt")
            self._readers[file] = cast(Reader, self._files.enter_context(opened))
        return self._readers[file]


def _joined(module: str, parameter: str) -> str:
    return f"{module}.{parameter}" if module else parameter
