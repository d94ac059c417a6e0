"""How simulated workers spend their time: a model makes a machine for each life of a worker."""

from dataclasses import dataclass
from typing import Protocol

from tercet.config import EngineConfig
from tercet.simulator.ideal_machine import IdealMachine
from tercet.simulator.machine import Book, Machine, Say
from tercet.simulator.timeline import Timeline
from tercet.wire import Endpoint


class MachineModel(Protocol):
    """`speed` is a worker's own: 0.5 takes twice as long as the model says."""

    @property
    def hands_off(self) -> bool:
        """Its machines can prefill for each other; others do everything themselves, so one pool of them is enough."""

    def machine(
        self,
        timeline: Timeline,
        endpoint: Endpoint,
        say: Say,
        book: Book,
        engine: EngineConfig,
        speed: float,
    ) -> Machine: ...


@dataclass(frozen=True, slots=True)
class IdealModel:
    """One prompt at a time at a constant speed, and nothing but prompts: see `tercet.simulator.ideal_machine`."""

    tokens_per_s: float = 20_000.0

    @property
    def hands_off(self) -> bool:
        return False

    def machine(
        self,
        timeline: Timeline,
        endpoint: Endpoint,
        say: Say,
        book: Book,
        engine: EngineConfig,
        speed: float,
    ) -> IdealMachine:
        return IdealMachine(
            timeline,
            endpoint,
            say,
            book,
            tokens_per_s=self.tokens_per_s * speed,
            cache_blocks=engine.kv_blocks,
            block_tokens=engine.block_tokens,
            start_within_s=engine.start_within_s,
        )
