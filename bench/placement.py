"""Claim: a placement group of its own costs a worker's restart nothing where there is room, and under a second where there is none.

    python bench/placement.py [--tries 10]

On a Ray of four CPUs an actor without anything in it is killed and started again, by resources on the actor and by a group, in
turns. *Full* actors take all CPUs, so that the next life needs what the last one held. Prints a table.
"""

import argparse
import os
import signal
import statistics
import time
from contextlib import suppress

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tercet.cluster.placement import Bundle
from tercet.cluster.ray_places import give_up, reserve
from tercet.cluster.ray_runtime import RayRuntime

CPUS = 4.0
PAUSE_S = 1.5
"""Between tries, so that Ray's head has seen what the last one freed."""


class Sitter:
    def pid(self) -> int:
        return os.getpid()


def start(name: str, cpus: float, grouped: bool) -> tuple[ActorHandle, PlacementGroup | None]:
    place = reserve(name, Bundle({"CPU": cpus}, {})) if grouped else None
    strategy = PlacementGroupSchedulingStrategy(place, 0) if place else "DEFAULT"
    options = {"name": name, "lifetime": "detached", "scheduling_strategy": strategy}
    environment = {"env_vars": {"OMP_NUM_THREADS": "1"}}  # as for a worker: no idle process will do
    actor = ray.remote(Sitter).options(num_cpus=cpus, runtime_env=environment, **options).remote()
    return actor, place


def end(actor: ActorHandle, place: PlacementGroup | None) -> None:
    ray.kill(actor, no_restart=True)
    if place is not None:
        give_up(place)


def restart_s(name: str, cpus: float, grouped: bool) -> float:
    """From the moment the death is known to the first answer of the next life."""
    dead, place = start(f"{name}-dead", cpus, grouped)
    os.kill(ray.get(dead.pid.remote()), signal.SIGKILL)
    with suppress(RayActorError):
        ray.get(dead.pid.remote())
    begun_s = time.monotonic()
    end(dead, place)
    heir, place = start(f"{name}-heir", cpus, grouped)
    ray.get(heir.pid.remote())
    taken_s = time.monotonic() - begun_s
    end(heir, place)
    time.sleep(PAUSE_S)
    return taken_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=10)
    tries = parser.parse_args().tries
    runtime = RayRuntime.start_local(CPUS)
    rows: dict[tuple[str, str], list[float]] = {}
    try:
        full = ray.cluster_resources()["CPU"]
        for n in range(tries):
            for node, cpus in (("has room", full / 4), ("full", full)):
                for way, grouped in (("actor", False), ("group", True)):
                    taken_s = restart_s(f"{n}-{node}-{way}", cpus, grouped)
                    rows.setdefault((node, way), []).append(taken_s)
    finally:
        runtime.stop()
    print(f"{'node':10}{'reserved by':13}{'restart p50':>12}{'min':>8}{'max':>8}   seconds")
    for (node, way), seconds in rows.items():
        p50 = statistics.median(seconds)
        print(f"{node:10}{way:13}{p50:12.2f}{min(seconds):8.2f}{max(seconds):8.2f}")


if __name__ == "__main__":
    main()
