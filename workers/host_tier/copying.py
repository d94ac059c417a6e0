"""Between a tier and whoever copies for it."""

from collections.abc import Callable

import torch

from tercet.workers.host_tier.copies import Copier
from tercet.workers.host_tier.plain_copier import PlainCopier
from tercet.workers.host_tier.stream_copier import StreamCopier
from tercet.workers.host_tier.tier import Tier
from tercet.workers.kv_pool import KvPool

OpenCopier = Callable[[KvPool, int], Copier]


class Copying:
    """Carries out a tier's orders."""

    def __init__(self, tier: Tier, copier: Copier | None) -> None:
        assert copier is not None or not tier.under_way
        self._tier, self._copier = tier, copier

    @property
    def under_way(self) -> bool:
        """Whether there is something to wait for."""
        return self._tier.under_way > 0

    def begin(self) -> None:
        """What the tier has ordered is under way."""
        if self._copier is not None:
            for copies in self._tier.orders():
                self._copier.submit(copies)

    def land(self) -> None:
        """Tell the tier what is over."""
        if self._copier is not None and self._tier.under_way:
            self._tier.landed(self._copier.done())

    def wait(self) -> None:
        """Until there is something to `land`, if anything is under way."""
        if self._copier is not None and self._tier.under_way:
            self._copier.wait()


def open_copier(kv: KvPool, blocks: int) -> Copier:
    """Takes host memory for so many blocks; pinned where the pool is on a GPU."""
    host = KvPool(kv.geometry, blocks)
    return PlainCopier(kv, host) if kv.device == torch.device("cpu") else StreamCopier(kv, host)
