"""What a simulation is told besides the cluster file and the trace."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tercet.errors import OptionError
from tercet.ids import WorkerId
from tercet.simulator.engine_model import EngineModel
from tercet.simulator.knowledge import Knowledge
from tercet.simulator.machine_model import MachineModel


@dataclass(frozen=True, slots=True)
class Failure:
    """A worker's process dies, and with it its cache; another one takes its place `down_s` later."""

    worker: WorkerId
    at_s: float
    down_s: float = math.inf

    def __str__(self) -> str:
        down = "and stays away" if math.isinf(self.down_s) else f"for {self.down_s:g} s"
        return f"{self.worker} at {self.at_s:g} s, {down}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationOptions:
    """Everything that is drawn by lot is drawn by `seed`."""

    model: MachineModel = field(default_factory=EngineModel)
    front_doors: int = 1
    """Each request comes to one of them by lot; they know of each other what workers pass on."""
    report_age_s: float = 0.0
    """Workers report so often, each in its own phase. 0: on every change, so front doors see everything as it is."""
    knowledge: Knowledge = Knowledge.OWN
    """Of caches."""
    accounts: bool = True
    """Front doors count what they have sent and no report shows yet, and what must be done since; off only to compare."""
    network_s: float = 0.0
    """A message's way between a front door and a worker."""
    estimate_noise: float = 0.0
    """Reports tell coefficients that are off by up to this share, drawn for each report."""
    failures: tuple[Failure, ...] = ()
    speeds: Mapping[WorkerId, float] = field(default_factory=dict)
    """Of workers that are not as fast as the model says: 0.5 takes twice as long."""
    warm_up_share: float = 0.0
    """Requests that arrive in this first part of the time are served and not counted."""
    seed: int = 0

    def __post_init__(self) -> None:
        for worker, speed in self.speeds.items():
            if not speed > 0:
                reason = f"{speed:g} of {worker!r} is not positive"
                raise OptionError("--speed", reason, "1 is as fast as the model says")
        assert self.front_doors > 0 <= self.report_age_s, f"cannot be simulated: {self}"
        assert 0 <= self.estimate_noise < 1 > self.warm_up_share >= 0, f"no shares: {self}"
