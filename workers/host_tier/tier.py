"""What a scheduler asks of a place that KV comes back from."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from tercet.ids import BlockHash, BlockId
from tercet.wire import TierFigures
from tercet.workers.host_tier.copies import Copies
from tercet.workers.sequence import Sequence as Request


class Tier(Protocol):
    """Holds blocks that the device does not."""

    @property
    def blocks(self) -> int:
        """0 where nothing is ever kept."""
        ...

    @property
    def under_way(self) -> int:
        """Orders that were not said to be over, those not taken yet included."""
        ...

    def reach(self, names: Sequence[BlockHash], cached: int) -> int:
        """How many leading blocks need not be computed, when the device's prefix cache has the first `cached`."""
        ...

    def lacks(self, names: Sequence[BlockHash], cached: int) -> int:
        """How many of them are to be fetched; 0 where it is not worth while."""
        ...

    def fetch(self, request: Request, names: Sequence[BlockHash], cached: int) -> None:
        """Bring what `lacks` counted into the prefix cache; `request` is `fetching` meanwhile. The device has room."""
        ...

    def took(self, request: Request, cached: int) -> None:
        """It got blocks, the first `cached` of them with content."""
        ...

    def orders(self) -> list[Copies]:
        """What is to be copied from now on."""
        ...

    def landed(self, numbers: Iterable[int]) -> None:
        """These orders are over."""
        ...

    def references(self) -> Mapping[BlockId, int]:
        """The device's blocks that orders under way hold, and how often."""
        ...

    def figures(self) -> TierFigures: ...

    def check_integrity(self) -> None: ...


class NoTier:
    """There is none: what the device evicts is lost."""

    blocks = under_way = 0

    def reach(self, names: Sequence[BlockHash], cached: int) -> int:
        return cached

    def lacks(self, names: Sequence[BlockHash], cached: int) -> int:
        return 0

    def fetch(self, request: Request, names: Sequence[BlockHash], cached: int) -> None:
        raise AssertionError(f"nothing is here for {request.id}")

    def took(self, request: Request, cached: int) -> None:
        pass

    def orders(self) -> list[Copies]:
        return []

    def landed(self, numbers: Iterable[int]) -> None:
        assert not list(numbers), "nothing was ordered"

    def references(self) -> Mapping[BlockId, int]:
        return {}

    def figures(self) -> TierFigures:
        return TierFigures()

    def check_integrity(self) -> None:
        pass
