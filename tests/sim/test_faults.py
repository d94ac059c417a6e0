"""Ten thousand bad days of a small cluster, and proof that a bug would not have got through them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.climate import Theme
from faults.control_mutations import MUTATIONS
from faults.mutations import Mutation
from faults.world import Verdict, play, simulated

SCHEDULES = 10_000
AT_ONCE = 500
PLANTED_SEEDS = 1000
"""Within so many schedules every planted bug must show."""
LINES = 120


@pytest.fixture(autouse=True)
def edges() -> Iterator[None]:
    with simulated():
        yield


def story(seed: int) -> str:
    """How it came to that."""
    lines = play(seed, telling=True).lines
    how = f"replay it: PYTHONPATH=tests/sim python -m faults --tell {seed}"
    return "\n".join([f"seed {seed}; {how}", *lines[-LINES:]])


@pytest.mark.parametrize("first", range(0, SCHEDULES, AT_ONCE))
def test_whatever_happens_every_client_is_told_the_right_tokens_and_nothing_is_left(
    first: int,
) -> None:
    for seed in range(first, first + AT_ONCE):
        if play(seed).complaints:
            pytest.fail(story(seed), pytrace=False)


def first_complaint(mutation: Mutation) -> Verdict | None:
    with mutation.planted():
        verdicts = (play(seed, mutation.theme) for seed in range(PLANTED_SEEDS))
        return next((verdict for verdict in verdicts if verdict.complaints), None)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_planted_bug_is_found(mutation: Mutation) -> None:
    verdict = first_complaint(mutation)
    assert verdict is not None, f"{PLANTED_SEEDS} schedules and nobody noticed"
    assert not play(verdict.seed, mutation.theme).complaints, "without the bug there is none"


def test_the_faults_are_there() -> None:
    """Moves of both kinds end in every way, in the schedules that the others play."""
    outcomes: dict[str, int] = {}
    for seed in range(100):
        for outcome, count in play(seed).outcomes.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    assert set(outcomes) == {"committed", "recomputed", "declined", "dropped"}
    assert min(outcomes.values()) >= 10


def test_a_schedule_is_the_same_in_another_process() -> None:
    """Whose sets of names have another order."""
    command = [sys.executable, "-m", "faults", "--tell", "3"]
    path = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"PYTHONHASHSEED": "4711", "PYTHONPATH": path}
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert told.stdout.splitlines() == play(3, telling=True).lines


@pytest.mark.parametrize("theme", Theme)
def test_a_story_says_who_did_what_and_when(theme: Theme) -> None:
    lines = play(1, theme, telling=True).lines
    assert any("asks:" in line for line in lines)
    assert any("hears from door-0:1: Submit" in line for line in lines)
    times = [float(line.split(" s ")[0]) for line in lines]
    assert times == sorted(times)
