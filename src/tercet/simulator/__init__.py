"""Replays workloads against the real policies on a manual clock, with a latency model in place of the GPUs."""

from tercet.simulator.engine_model import EngineModel
from tercet.simulator.knowledge import Knowledge
from tercet.simulator.layout import scaled
from tercet.simulator.machine_model import IdealModel, MachineModel
from tercet.simulator.options import Failure, SimulationOptions
from tercet.simulator.results import Results
from tercet.simulator.simulation import simulate

__all__ = [
    "EngineModel",
    "Failure",
    "IdealModel",
    "Knowledge",
    "MachineModel",
    "Results",
    "SimulationOptions",
    "scaled",
    "simulate",
]
