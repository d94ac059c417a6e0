"""What simulated workers are, and how a machine is made for each life of one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tercet.config import ClusterConfig
from tercet.ids import RequestId
from tercet.simulator.engine_machine import EngineMachine
from tercet.simulator.engine_model import EngineModel
from tercet.simulator.fabric import Fabric
from tercet.simulator.ideal_machine import IdealMachine
from tercet.simulator.machine import Book, Machine, Say
from tercet.simulator.stretches import Told
from tercet.simulator.timeline import Timeline
from tercet.wire import Endpoint


@dataclass(frozen=True, slots=True)
class IdealModel:
    """One prompt at a time at a constant speed, and nothing but prompts: see `tercet.simulator.ideal_machine`."""

    tokens_per_s: float = 20_000.0


MachineModel = IdealModel | EngineModel

Make = Callable[[Endpoint, Say, float], Machine]
"""A machine of this speed, of which 0.5 takes twice as long as the model says."""


def hands_off(model: MachineModel) -> bool:
    """Whether its machines can prefill for each other; others do everything themselves, so one pool of them is enough."""
    return isinstance(model, EngineModel)


def makes(
    model: MachineModel,
    timeline: Timeline,
    config: ClusterConfig,
    book: Book,
    told: Told,
    seed: int,
) -> Make:
    """Machines of one cluster. `told` hears of times between tokens."""
    if isinstance(model, IdealModel):
        return _ideal_machines(model, timeline, config, book)
    fabric = Fabric(timeline, model, config.link.dead_after_s)

    def continued(request: RequestId) -> Sequence[int]:
        arrival = book.get(request)  # none where it ended before its order was handled
        return arrival.continued if arrival is not None else ()

    def engine_machine(endpoint: Endpoint, say: Say, speed: float) -> EngineMachine:
        return EngineMachine(
            timeline,
            endpoint,
            say,
            book,
            config,
            model,
            fabric,
            speed=speed,
            seed=seed,
            told=told,
            continued=continued,
        )

    return engine_machine


def _ideal_machines(
    model: IdealModel, timeline: Timeline, config: ClusterConfig, book: Book
) -> Make:
    def ideal_machine(endpoint: Endpoint, say: Say, speed: float) -> IdealMachine:
        engine = config.engine_of(endpoint.role)
        return IdealMachine(
            timeline,
            endpoint,
            say,
            book,
            tokens_per_s=model.tokens_per_s * speed,
            cache_blocks=engine.kv_blocks,
            block_tokens=engine.block_tokens,
            start_within_s=engine.start_within_s,
        )

    return ideal_machine
