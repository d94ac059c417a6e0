"""Agents and what they compete with: a made-up workload, by seed.

An agent has sessions of turns; each turn's prompt is everything before it and a tool's answer, after a pause with a heavy
tail. The others come by chance, and have no next turn. What is said does not depend on when it is served.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BLOCK_TOKENS = 16
SYSTEM_TOKENS = 1024
TASK_TOKENS, ANSWER_TOKENS, OUTPUT_TOKENS = 3000, 600, 100
TURNS = 8
DOCUMENTS = 150


@dataclass(frozen=True)
class Regime:
    """One workload. Pauses and lengths are medians of log-normal distributions."""

    name: str
    agents: int = 8
    pause_s: float = 6.0
    ttl_s: float = 60.0
    others_per_s: float = 8.0
    other_tokens: int = 1500
    documents: bool = False
    """The others ask about one of `DOCUMENTS` documents, the first ones most often, instead of all for something new."""
    returns: bool = True
    """Agents have next turns; otherwise every turn is the first of a session, and only said to have a next one."""
    share: float = 0.5
    blocks: int = 8192


REGIMES = (
    Regime("crowded"),
    Regime("roomy", others_per_s=2.0),
    Regime("time to live too short", ttl_s=2.0),
    Regime("three times the agents", agents=24, others_per_s=4.0),
    Regime("others share documents", documents=True),
    Regime("agents do not come back", documents=True, returns=False, agents=16),
    Regime("little memory", others_per_s=4.0, other_tokens=3000, blocks=4096),
)


@dataclass
class Call:
    """One request and what it waits for."""

    prompt: list[int]
    output: list[int]
    session: str = ""
    ttl_s: float = 0.0
    agent: "Agent | None" = None
    known_tokens: int = 0
    """Of the prompt: what was in full blocks when the agent's last turn ended."""
    at_s: float = 0.0
    first_s: float | None = None


class Agent:
    """Its sessions, one after the other."""

    def __init__(self, number: int, regime: Regime, seed: int) -> None:
        self._number = number
        self._dice = np.random.default_rng((seed, number))
        self._regime = regime
        self._turn = self._session = 0
        self._log: list[int] = []

    def pause_s(self) -> float:
        return float(self._dice.lognormal(np.log(self._regime.pause_s), 1.0))

    def next_call(self) -> Call:
        new = self._turn == 0
        if new:
            self._session += 1
            self._log = list(range(SYSTEM_TOKENS))
        known = 0 if new else (len(self._log) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        self._turn = (self._turn + 1) % TURNS
        said = draw(self._dice, TASK_TOKENS if new else ANSWER_TOKENS)
        prompt, output = [*self._log, *said], draw(self._dice, OUTPUT_TOKENS)
        self._log = [*prompt, *output]
        ttl_s = self._regime.ttl_s if self._turn else 0.0  # nothing follows the last turn
        if not self._regime.returns:
            self._turn = 0
        return Call(prompt, output, f"{self._number}/{self._session}", ttl_s, self, known)


def draw(dice: np.random.Generator, median: int) -> list[int]:
    """So many tokens that nobody has seen."""
    count = max(1, int(dice.lognormal(np.log(median), 0.5)))
    return [int(token) for token in dice.integers(10**6, 2**31, count)]


def others(regime: Regime, seconds: float, seed: int) -> Iterator[Call]:
    """Requests without a next turn, at the times at which they come."""
    dice, at_s = np.random.default_rng((seed, 10**6)), 0.0
    documents = [draw(dice, regime.other_tokens) for _ in range(DOCUMENTS)]
    while (at_s := at_s + dice.exponential(1 / regime.others_per_s)) < seconds:
        if regime.documents:
            known = documents[min(int(dice.zipf(1.2)) - 1, DOCUMENTS - 1)]
            prompt = [*known, *draw(dice, 50)]
        else:
            prompt = draw(dice, regime.other_tokens)
        yield Call(prompt, draw(dice, OUTPUT_TOKENS), at_s=at_s)
