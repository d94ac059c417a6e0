"""How many copies a pull takes in the steady state: two real block pools, prompts that come and go, no model.

    python bench/fragmentation.py [--json bench/results/fragmentation.json]

A prefill pool allocates chunk by chunk, a decode pool whole prompts, whose tables then grow a block at a time; everything is
registered and evicted when room is needed, as workers do. One row a pool size; the first 500 prompts are not counted.
"""

import argparse
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tercet.ids import BlockHash, BlockId
from tercet.workers.block_pool import BlockPool
from tercet.workers.transfer.runs import numbers, runs

PROMPTS, UNCOUNTED = 3000, 500
CHUNK_BLOCKS = 32
PREFILLS, DECODES = 4, 24
"""Requests that hold blocks at once."""
Row = dict[str, float]


def copies(local: list[BlockId], remote: list[BlockId]) -> int:
    return len(runs(numbers(local), numbers(remote)).length)


class Side:
    """A pool and the tables in it; ended ones stay as cache."""

    def __init__(self, blocks: int, tables_max: int, dice: random.Random) -> None:
        self.pool = BlockPool(blocks, np.zeros(blocks, dtype=np.uint64))
        self.tables: list[list[BlockId]] = []
        self._tables_max, self._dice = tables_max, dice
        self._names = map(lambda i: BlockHash(i.to_bytes(16, "little")), itertools.count())

    def make_room(self, blocks: int) -> None:
        while len(self.tables) >= self._tables_max or self.pool.free < blocks:
            table = self.tables.pop(self._dice.randrange(len(self.tables)))
            for block in table:
                self.pool.register(block, next(self._names))
            self.pool.release(table)

    def grow(self) -> None:
        for table in self.tables:
            table += self.pool.allocate(1, table[-1]) or []


def prompts(dice: random.Random, longest: int) -> Iterator[int]:
    """Blocks of each: 55 in the median."""
    while True:
        yield min(max(1, round(dice.lognormvariate(4.0, 1.0))), longest)


def steady(blocks: int, seed: int) -> Row:
    dice = random.Random(seed)
    source, target = Side(blocks, PREFILLS, dice), Side(blocks, DECODES, dice)
    pulls = pulled = both = here = there = 0
    for number, wanted in enumerate(itertools.islice(prompts(dice, blocks // 8), PROMPTS)):
        source.make_room(wanted)
        target.make_room(wanted + DECODES)
        local, table = target.pool.allocate(wanted) or [], list[BlockId]()
        for first in range(0, wanted, CHUNK_BLOCKS):
            count = min(CHUNK_BLOCKS, wanted - first)
            chunk = source.pool.allocate(count, table[-1] if table else None) or []
            table += chunk
            if number >= UNCOUNTED:
                mine = local[first : first + count]
                pulls, pulled = pulls + 1, pulled + count
                both += copies(mine, chunk)
                here, there = here + copies(mine, mine), there + copies(chunk, chunk)
        source.tables.append(table)
        target.tables.append(local)
        target.grow()
    return {
        "blocks": blocks,
        "blocks_a_pull": pulled / pulls,
        "runs_at_the_source": there / pulls,
        "runs_at_the_destination": here / pulls,
        "copies": both / pulls,
        "blocks_a_copy": pulled / both,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = [steady(blocks, seed=blocks) for blocks in (2048, 4096, 16384)]
    table = Table(title="copies a pull", title_justify="left")
    for name in found[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in found:
        table.add_row(*(f"{value:.4g}" for value in row.values()))
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
