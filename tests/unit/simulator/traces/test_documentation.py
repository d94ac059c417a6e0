"""The page about traces shows a workload that can be generated, and names every format."""

import re
from pathlib import Path

import msgspec

from tercet.simulator.traces import FORMATS, ReadOptions, Workload, generated

PAGE = (Path(__file__).parents[4] / "docs" / "traces.md").read_text()


def test_the_workload_shown_can_be_generated() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    workload = msgspec.yaml.decode(shown, type=Workload)
    assert len(generated(workload, ReadOptions(span_s=60)).arrivals) > 60


def test_every_format_has_its_row() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(FORMATS)
