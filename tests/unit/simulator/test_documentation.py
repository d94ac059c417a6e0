"""The page about the simulator names options and figures that there are."""

import re
from pathlib import Path

from typer.testing import CliRunner

from tercet.cli.commands import app
from tercet.simulator import Results

PAGE = (Path(__file__).parents[3] / "docs" / "simulator.md").read_text()


def test_every_option_named_exists():
    shown = CliRunner().invoke(app, ["simulate", "--help"], env={"COLUMNS": "300"}).stdout
    named = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", PAGE)) - {"--help"}
    assert named - set(re.findall(r"--[a-z]+(?:-[a-z]+)*", shown)) == set()


def test_every_figure_is_one():
    (table,) = re.findall(r"\| figure \| is \|\n(.*?)\n\n", PAGE, re.DOTALL)
    named = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert named <= set(Results.__struct_fields__)
    assert len(named) > 10
