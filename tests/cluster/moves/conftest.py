"""Workers on this machine, whatever happens to them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from moves.stage import Stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    try:
        yield stage
        await stage.end()
    finally:
        await stage.clear()
