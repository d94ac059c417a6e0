"""Whether packing KV before it travels pays, decided for each peer from what its link was seen to do. Pure.

After KVServe (arXiv 2605.13734): of V bytes, a link of B bytes/s takes V/B; a codec that packs and unpacks S bytes/s to a
`ratio`-th takes V/S + V/(B·ratio), which is less if B < (1 - 1/ratio)·S. What a codec was seen to take beyond that is
remembered, per peer, and added, so that one which does not keep its promise is left; it is tried again later.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

NEWEST_WEIGHT = 0.2
"""Of the newest observation in every moving average."""
FORGIVEN = 1 / 64
"""By so much each observation of another codec lessens what is held against one that is not used."""
BYTES_MIN = 2**20
"""Of KV in one pull: smaller ones say little about a link's bandwidth, are soon over, and travel as they are."""


class Codec(StrEnum):
    """How blocks travel."""

    NONE = "none"
    FP8 = "fp8"
    INT8 = "int8"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a codec does to KV of this geometry on this machine."""

    codec: Codec
    ratio: float
    """Bytes of KV for each byte that travels."""
    bytes_per_s: float
    """Of KV, packed and unpacked: 1/S is the sum of both inverses."""

    @property
    def critical_bytes_per_s(self) -> float:
        """A link slower than this carries more KV packed than as it is."""
        return (1 - 1 / self.ratio) * self.bytes_per_s

    def seconds_per_byte(self, link_bytes_per_s: float) -> float:
        return 1 / self.bytes_per_s + 1 / (link_bytes_per_s * self.ratio)


PLAIN = Profile(Codec.NONE, 1.0, math.inf)


@dataclass(frozen=True, slots=True)
class Observation:
    """One pull that has ended well."""

    codec: Codec
    kv_bytes: int
    """What arrived, unpacked."""
    wire_bytes: int
    wire_s: float
    total_s: float
    """Packing and unpacking included."""


@dataclass(slots=True)
class _Peer:
    link_bytes_per_s: float = 0.0
    """Zero until something was observed."""
    excess: dict[Codec, float] = field(default_factory=dict)
    """Seconds a byte of KV took longer than predicted."""


class CodecChoice:
    """`profiles` are the codecs that may be used, in order of preference; without any, everything travels as it is."""

    def __init__(self, profiles: Sequence[Profile], bytes_min: int = BYTES_MIN) -> None:
        self._profiles = {profile.codec: profile for profile in (PLAIN, *profiles)}
        self._bytes_min = bytes_min
        self._peers: dict[str, _Peer] = {}

    def link_bytes_per_s(self, peer: str) -> float:
        """Estimated bandwidth of the link from a peer; 0 while nothing is known."""
        known = self._peers.get(peer)
        return known.link_bytes_per_s if known else 0.0

    def choose(self, peer: str, kv_bytes: int) -> Codec:
        """How so many bytes of KV should travel from a peer. From one that is not known yet, as they are."""
        known = self._peers.get(peer)
        if known is None or kv_bytes < self._bytes_min:
            return Codec.NONE
        return min(self._profiles.values(), key=lambda profile: _expected(known, profile)).codec

    def observe(self, peer: str, seen: Observation) -> None:
        """Learn from a pull; small ones are ignored."""
        if seen.kv_bytes < self._bytes_min or seen.wire_s <= 0:
            return
        known = self._peers.setdefault(peer, _Peer())
        link = seen.wire_bytes / seen.wire_s
        known.link_bytes_per_s = _mixed(known.link_bytes_per_s or link, link)
        predicted = self._profiles[seen.codec].seconds_per_byte(known.link_bytes_per_s)
        excess = seen.total_s / seen.kv_bytes - predicted
        for codec in known.excess.keys() - {seen.codec}:
            known.excess[codec] *= 1 - FORGIVEN
        known.excess[seen.codec] = _mixed(known.excess.get(seen.codec, 0.0), excess)

    def forget(self, peer: str) -> None:
        """The peer is gone. Idempotent."""
        self._peers.pop(peer, None)


def _expected(peer: _Peer, profile: Profile) -> float:
    return profile.seconds_per_byte(peer.link_bytes_per_s) + peer.excess.get(profile.codec, 0.0)


def _mixed(average: float, newest: float) -> float:
    return (1 - NEWEST_WEIGHT) * average + NEWEST_WEIGHT * newest
