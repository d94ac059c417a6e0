"""Worker processes as detached, named Ray actors, each in a placement group of its own: a controller that comes back finds
both by their name.

The only place where Ray's exceptions about workers become ours. Knows the methods of the worker actor (`WorkerActor`
below), but not its class, which the composition root hands over.
"""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import ray
from ray.actor import ActorClass, ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tercet.cluster.events import Desired
from tercet.cluster.fleet import Lodger
from tercet.cluster.placement import Bundle, Node, Room
from tercet.cluster.ray_places import give_up, reserve, reserved
from tercet.cluster.ray_runtime import NAMESPACE
from tercet.cluster.ray_wish import RayWish
from tercet.cluster.seat import seat_role
from tercet.cluster.status import ProcessFigures
from tercet.config import ClusterConfig
from tercet.errors import PeerLost, PeerRefused
from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import Endpoint

T = TypeVar("T")

REASON_CHARS_MAX = 300


class WorkerActor(Protocol):
    """The methods of the actor around a worker. Structs travel as msgpack, so that versions may differ for a while."""

    def __init__(self, config: bytes, worker: str, incarnation: str, run_dir: str) -> None: ...
    async def start(self) -> bytes:
        """Load, listen, and return the `Endpoint`; idempotent."""

    async def endpoint(self) -> bytes | None:
        """The `Endpoint` once it has started."""

    async def wait(self) -> None:
        """Return when the worker has stopped, raise when it has broken."""

    async def health(self) -> bool: ...
    async def status(self) -> bytes:
        """Figures with the field names of `ProcessFigures`."""

    async def drain(self) -> None: ...
    async def relieve(self, to: str, tokens: int) -> None: ...
    async def stop(self) -> None: ...


class RayWorker:
    """One worker actor, and the place it sits in or waits for; None when it has lost that and is about to end."""

    def __init__(self, actor: ActorHandle, place: PlacementGroup | None) -> None:
        self._actor = actor
        self._place = place

    async def placed(self) -> None:
        await _answer(self._actor.__ray_ready__.remote())

    async def start(self) -> Endpoint:
        return msgspec.msgpack.decode(await _answer(self._actor.start.remote()), type=Endpoint)

    async def endpoint(self) -> Endpoint | None:
        encoded = await _answer(self._actor.endpoint.remote())
        return None if encoded is None else msgspec.msgpack.decode(encoded, type=Endpoint)

    async def wait(self) -> None:
        await _answer(self._actor.wait.remote())

    async def health(self) -> bool:
        return await _answer(self._actor.health.remote())

    async def figures(self) -> ProcessFigures:
        encoded = await _answer(self._actor.status.remote())
        return msgspec.msgpack.decode(encoded, type=ProcessFigures)

    async def drain(self) -> None:
        await _answer(self._actor.drain.remote())

    async def relieve(self, to: WorkerId, tokens: int) -> None:
        await _answer(self._actor.relieve.remote(to, tokens))

    async def stop(self) -> None:
        await _answer(self._actor.stop.remote())

    def kill(self) -> None:
        ray.kill(self._actor, no_restart=True)
        if self._place is not None:
            give_up(self._place)


class RayFleet:
    """The worker actors of one cluster."""

    def __init__(
        self, config: ClusterConfig, worker_class: "ActorClass[Any]", run_dir: Path
    ) -> None:
        self._config = config
        self._encoded = msgspec.msgpack.encode(config)
        self._worker_class = worker_class
        self._run_dir = run_dir
        self._prefix = f"tercet-worker:{config.name}:"
        self._wish = RayWish(config.name, self._encoded)

    def start(self, worker: WorkerId, role: Role, incarnation: Incarnation) -> RayWorker:
        name, bundle = (
            f"{self._prefix}{worker}:{incarnation}",
            Bundle.of(self._config.pools.of(role)),
        )
        place = reserve(name, bundle)
        actor = self._worker_class.options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            max_restarts=0,  # a new life needs a new incarnation, and that is ours to give
            num_cpus=bundle.resources.get("CPU", 0),
            num_gpus=bundle.resources.get("GPU", 0),
            resources=bundle.custom,
            scheduling_strategy=PlacementGroupSchedulingStrategy(place, 0),
            runtime_env={"env_vars": _thread_variables(self._config.engine_of(role).threads)},
        ).remote(self._encoded, worker, incarnation, str(self._run_dir))
        return RayWorker(actor, place)

    async def found(self) -> list[Lodger]:
        return await asyncio.to_thread(self._found)

    async def wish(self) -> Desired | None:
        return await asyncio.to_thread(self._wish.read)

    async def remember(self, wish: Desired | None) -> None:
        if wish is None:
            await asyncio.to_thread(self._wish.clear)
        else:
            await asyncio.to_thread(self._wish.write, wish)

    async def room(self) -> Room:
        nodes, free = await asyncio.gather(
            asyncio.to_thread(ray.nodes), asyncio.to_thread(ray.available_resources)
        )
        living = [Node(node["Resources"], node["Labels"]) for node in nodes if node["Alive"]]
        return Room(living, free)

    def _found(self) -> list[Lodger]:
        places = reserved(self._prefix)
        lodgers = []
        for entry in ray.util.list_named_actors(all_namespaces=True):
            name = entry["name"]
            if entry["namespace"] != NAMESPACE or not name.startswith(self._prefix):
                continue
            try:
                actor = ray.get_actor(name, NAMESPACE)
            except ValueError:
                continue  # it died since it was listed
            worker, incarnation = self._named(name)
            lodgers.append(Lodger(worker, incarnation, RayWorker(actor, places.pop(name, None))))
        for place in places.values():
            give_up(place)  # its worker died, or was never started, while no controller lived
        return lodgers

    def _named(self, name: str) -> tuple[WorkerId, Incarnation]:
        worker, _, incarnation = name.removeprefix(self._prefix).partition(":")
        seat_role(WorkerId(worker))  # a name that is not a seat's is a bug, not a worker
        return WorkerId(worker), Incarnation(incarnation)


def _thread_variables(threads: int) -> dict[str, str]:
    """Read by OpenMP and BLAS when torch is loaded, hence set before the process starts."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


async def _answer(reference: Awaitable[T]) -> T:
    """A worker's answer, with Ray's exceptions made ours."""
    try:
        return await reference
    except RayTaskError as exc:
        raise PeerRefused(_short(f"{type(exc.cause).__name__}: {exc.cause}")) from exc
    except RayActorError as exc:
        raise PeerLost(_short(str(exc))) from exc
    except RayError as exc:
        raise PeerLost(_short(f"{type(exc).__name__}: {exc}")) from exc


def _short(text: str) -> str:
    """One line of it: Ray explains a dead actor in twenty, of which the exit detail matters."""
    line = " ".join(text.split())
    detail = line.rpartition("Worker exit detail: ")[2] or line
    return detail.partition(" Some common causes")[0][:REASON_CHARS_MAX]
