"""`tercet demo` as `make demo` runs it."""

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]


def test_the_demo_answers_through_both_doors_moves_kv_and_leaves_nothing(environment):
    done = subprocess.run(
        ["tercet", "demo"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The code of the blue door is 1907." in done.stdout
    assert "Your name is Anna." in done.stdout
    rows = re.findall(r"^ ?\w{6} +(?:HTTP|gRPC) .*$", done.stdout, re.MULTILINE)
    assert len(rows) == 6, done.stdout
    assert sum("prefill-0" in row for row in rows) >= 2
    assert "no process is left" in done.stdout
