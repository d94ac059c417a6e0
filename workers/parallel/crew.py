"""The ranks of a worker: starts the followers, has all of them load, and ends them."""

from collections.abc import Callable

import torch

from tercet.config import EngineConfig, ModelConfig
from tercet.workers.parallel.follower import Follower
from tercet.workers.parallel.group import Group, nccl_sum, rendezvous
from tercet.workers.parallel.orders import Join, Settings
from tercet.workers.parallel.shared_sum import Mesh
from tercet.workers.runner import Runner, RunnerLost

Lost = Callable[[BaseException], None]


class Crew:
    """Ranks 1 to `ranks` - 1. `lost` is called from any thread when one of them ends after `load` and before `stop`."""

    def __init__(self, ranks: int, name: str, lost: Lost) -> None:
        self._ranks, self._name, self._lost = ranks, name, lost
        self._serving = False
        self._mesh = Mesh(ranks)
        self.followers: list[Follower] = []

    def load(self, model: ModelConfig, engine: EngineConfig) -> Runner:
        """Starts the followers and loads all parts; compares with the whole model's own attention.

        Blocks. Raises ModelUnsupported, or RunnerLost where a follower ends; then `stop` clears up.
        """
        for rank in range(1, self._ranks):
            name = f"{self._name}, rank {rank}"
            settings = Settings(rank, self._ranks, model, engine)
            self.followers.append(Follower(name, settings, self._mesh, self._ended))
        # Takes seconds, for transformers, in which the followers do the same.
        from tercet.workers.parallel.part import load_part  # noqa: PLC0415
        from tercet.workers.parallel.runner import ParallelRunner  # noqa: PLC0415

        group = Group(0, self._ranks)
        part = load_part(model, engine, group)
        for follower in self.followers:
            follower.wait_loaded()
        self._join(group, part.runner.kv.device)
        runner = ParallelRunner(part.runner, [follower.work for follower in self.followers])
        assert part.trial is not None, "rank 0 has one"
        part.trial.hold(runner)
        self._serving = True
        for follower in self.followers:
            if not follower.alive:
                raise RunnerLost(f"{follower.name} has ended")
        return runner

    def stop(self) -> None:
        """Ends the followers; blocks for at most `STOP_WAIT_S` each. Idempotent."""
        self._serving = False
        for follower in self.followers:
            follower.dismiss()
        for follower in self.followers:
            follower.end()
        self._mesh.close()

    def _join(self, group: Group, device: torch.device) -> None:
        if device.type == "cpu":
            self._tell(Join())
            group.join(self._mesh.side(0))
        else:
            store = rendezvous(self._ranks)
            self._tell(Join(store.port))
            group.join(nccl_sum(store, group, device))

    def _tell(self, order: Join) -> None:
        for follower in self.followers:
            follower.work.send(order)

    def _ended(self, follower: "Follower") -> None:
        if self._serving:
            self._lost(RunnerLost(f"{follower.name} has ended"))
