"""Tiny files in the published formats."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

Writer = Callable[[str, Iterable[object]], Path]


@pytest.fixture
def written(tmp_path: Path) -> Writer:
    """Writes lines to a file of that name: text as it is, all else as JSON."""

    def write(name: str, lines: Iterable[object]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("".join(f"{line}\n" for line in text))
        return path

    return write
