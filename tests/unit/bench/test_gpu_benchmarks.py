"""What is run on a lent GPU, once and for minutes, has run to its end before, on a CPU and with tiny sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "bench"


@pytest.mark.parametrize(
    ("script", "tables"),
    [
        ("kernels", {"Ceilings", "Decode attention, one layer", "Sampling"}),
        ("engine", {"Model", "Decode", "What each technique is worth"}),
        ("offline", {"Offline"}),
        ("fp8_products", {"Products with weights of 8 bits"}),
    ],
)
def test_a_dry_run_fills_every_table(script: str, tables: set[str], tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [sys.executable, str(BENCH / f"{script}.py"), "--dry-run", "--json", str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=dict(os.environ), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(out.read_text())
    assert document["troubles"] == []
    assert tables <= {table["title"] for table in document["tables"]}
    for table in document["tables"]:
        assert table["rows"], table["title"]
        assert done.stdout.rindex(table["title"]) > done.stdout.index("torch: ")
