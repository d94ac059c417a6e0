"""Plays many schedules: `python -m faults --seeds 100000 --from 0`; one with its story: `python -m faults --tell 4711`."""

import argparse
import sys
import time
from collections import Counter

from faults.world import play, simulated

FAILURES_MAX = 5


def main() -> int:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first one")
    parser.add_argument("--tell", type=int, default=None, help="play this one and tell its story")
    options = parser.parse_args()
    with simulated():
        return (
            tell(options.tell) if options.tell is not None else soak(options.first, options.seeds)
        )


def tell(seed: int) -> int:
    verdict = play(seed, telling=True)
    print(*verdict.lines, sep="\n")
    return bool(verdict.complaints)


def soak(first: int, seeds: int) -> int:
    failed, events, simulated_s, outcomes = 0, 0, 0.0, Counter()
    began_s = time.process_time()
    for seed in range(first, first + seeds):
        verdict = play(seed)
        events, simulated_s = events + verdict.events, simulated_s + verdict.seconds
        outcomes.update(verdict.outcomes)
        if verdict.complaints:
            failed += 1
            print(f"seed {seed}: {verdict.complaints[0]}", flush=True)
            if failed == FAILURES_MAX:
                break
    took_s = time.process_time() - began_s
    print(
        f"{seed + 1 - first} schedules, {failed} failed; {events} events, {simulated_s:.0f} simulated seconds,"
        f" moves {dict(outcomes)}; {took_s:.1f} s of CPU, {1e3 * took_s / (seed + 1 - first):.1f} ms each"
    )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
