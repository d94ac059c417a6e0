"""How long the key of a request must be: as short as its prefix is not hot.

If one prefix starts most prompts, a key of that length would send most requests to one pair. So the prefixes of the last
requests are counted, and where one carries more than its share the key goes on to a longer prefix. Prefixes are known by
chained names, so the tree that they form is a flat table: a name's parent is the name before it.

    share of a prefix in the window      its requests are placed by
    above 2/n of n workers               a longer prefix: it has grown
    between                              whatever was so far
    below 1/n                            this prefix, or a shorter one: it has folded
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice

from tercet.ids import RequestId
from tercet.router.prefix_names import PrefixName

GROW_SHARE = 2.0
FOLD_SHARE = 1.0
"""Both are shares of an even load, from the paper: a pair of workers carries two of n."""


class Hotness:
    """Counts the prefixes of the requests of the last `window_s` seconds, at most `window_requests` of them.

    Memory is bounded by `window_requests * depth_max` names; `requests_min` keeps the first few requests after a start
    from growing everything.
    """

    def __init__(
        self, *, window_s: float, window_requests: int, requests_min: int, depth_max: int
    ) -> None:
        assert min(window_s, window_requests, requests_min, depth_max) > 0
        self._window_s, self._window_requests = window_s, window_requests
        self._requests_min, self._depth_max = requests_min, depth_max
        self._window: OrderedDict[RequestId, tuple[float, tuple[PrefixName, ...]]] = OrderedDict()
        self._counts: dict[PrefixName, int] = {}
        self._grown: set[PrefixName] = set()

    def __len__(self) -> int:
        """Prefixes known now."""
        return len(self._counts)

    @property
    def requests(self) -> int:
        """Requests in the window now."""
        return len(self._window)

    def observe(self, request: RequestId, prefixes: Sequence[PrefixName], now_s: float) -> None:
        """A request came whose prefixes, shortest first, have these names. One that is asked for again counts once."""
        self._expire(now_s)
        if request in self._window:
            return
        while len(self._window) >= self._window_requests:
            self._drop_oldest()
        counted = tuple(islice(prefixes, self._depth_max))
        self._window[request] = now_s, counted
        counts = self._counts
        for name in counted:
            counts[name] = counts.get(name, 0) + 1

    def depth(self, prefixes: Sequence[PrefixName], workers: int) -> int:
        """How many of the prefixes, shortest first, are too hot to be the key of a request on so many workers."""
        depth = 0
        for name in islice(prefixes, self._depth_max):
            if not self._is_grown(name, workers):
                break
            depth += 1
        return depth

    def share(self, name: PrefixName) -> float:
        """The part of the window's requests that begin with this prefix."""
        return self._counts.get(name, 0) / max(1, len(self._window))

    def validate(self) -> None:
        """Assert that the counts are those of the window and nothing else is remembered."""
        counts: dict[PrefixName, int] = {}
        for _, names in self._window.values():
            for name in names:
                counts[name] = counts.get(name, 0) + 1
        assert counts == self._counts, (counts, self._counts)
        assert self._grown <= counts.keys(), self._grown - counts.keys()
        assert len(self._window) <= self._window_requests, len(self._window)

    def _is_grown(self, name: PrefixName, workers: int) -> bool:
        count = self._counts.get(name, 0)
        even = len(self._window) / max(1, workers)
        if name in self._grown:
            if count < FOLD_SHARE * even:
                self._grown.discard(name)
        elif count >= self._requests_min and count > GROW_SHARE * even:
            self._grown.add(name)
        return name in self._grown

    def _expire(self, now_s: float) -> None:
        while self._window:
            at_s, _ = next(iter(self._window.values()))
            if at_s > now_s - self._window_s:
                return
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, (_, names) = self._window.popitem(last=False)
        counts = self._counts
        for name in names:
            left = counts[name] - 1
            if left:
                counts[name] = left
            else:
                del counts[name]
                self._grown.discard(name)
