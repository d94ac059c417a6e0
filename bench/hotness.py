"""What DualMap's hotness tree costs in time and memory after many requests.

Prompts have 16 granules; two thirds of them begin with one of two hot system prompts, four or eight granules long, and the
rest of every prompt is new. The window is the policy's default.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tercet.ids import RequestId
from tercet.router.dualmap.hotness import Hotness
from tercet.router.prefix_names import PrefixName, mix

GRANULES = 16
WORKERS = 1000


@dataclass(frozen=True)
class Row:
    """The tree after `requests` requests."""

    requests: int
    names: int
    resident_mib: float
    """By how much the process's greatest resident size grew."""
    observe_us: float
    """Counting a request and finding the length of its key, mean of the thread's time."""


def prompt(number: int) -> list[PrefixName]:
    """The names of one prompt's prefixes."""
    shared = 4 * (number % 3)
    parts = (number % 2 if depth < shared else GRANULES * number for depth in range(GRANULES))
    return [PrefixName(mix(part + depth)) for depth, part in enumerate(parts)]


def measure(requests: int) -> Row:
    subject = Hotness(window_s=60.0, window_requests=2048, requests_min=8, depth_max=64)
    before_mib, busy_ns = resident_mib(), 0
    for number in range(requests):
        names, request = prompt(number), RequestId(f"r{number}")
        begun_ns = time.thread_time_ns()
        subject.observe(request, names, number * 0.01)
        subject.depth(names, WORKERS)
        busy_ns += time.thread_time_ns() - begun_ns
    grown_mib = resident_mib() - before_mib
    return Row(requests, len(subject), grown_mib, busy_ns / requests / 1e3)


def resident_mib() -> float:
    """The most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(show: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    row = measure(arguments.requests)
    show(
        f"after {row.requests:,} requests: {row.names:,} names, {row.resident_mib:.1f} MiB, "
        f"{row.observe_us:.1f} µs a request"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(row), indent=2))


if __name__ == "__main__":
    main()
