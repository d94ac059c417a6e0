"""A codec is used where the link is slower than the codec's worth, and left where it does not keep its promise."""

import pytest

from tercet.workers.transfer.codec_choice import (
    BYTES_MIN,
    Codec,
    CodecChoice,
    Observation,
    Profile,
)

KV_BYTES = 16 * 2**20
FP8 = Profile(Codec.FP8, ratio=1.99, bytes_per_s=10e9)
INT8 = Profile(Codec.INT8, ratio=1.99, bytes_per_s=8e9)


class EmulatedLink:
    """Carries `gbit_per_s` after `latency_s`; codecs take what their profiles say, times `slower`."""

    def __init__(self, gbit_per_s: float, latency_s: float = 0.0003) -> None:
        self.bytes_per_s = gbit_per_s * 1e9 / 8
        self.latency_s = latency_s
        self.slower: dict[Codec, float] = {}

    def carry(self, codec: Codec, kv_bytes: int = KV_BYTES) -> Observation:
        profile = {Codec.FP8: FP8, Codec.INT8: INT8}.get(codec)
        wire_bytes = int(kv_bytes / profile.ratio) if profile else kv_bytes
        wire_s = self.latency_s + wire_bytes / self.bytes_per_s
        coding_s = kv_bytes / profile.bytes_per_s * self.slower.get(codec, 1.0) if profile else 0.0
        return Observation(codec, kv_bytes, wire_bytes, wire_s, wire_s + coding_s)


def used(choice: CodecChoice, link: EmulatedLink, pulls: int) -> list[Codec]:
    """What was chosen for each of so many pulls in a row."""
    chosen = []
    for _ in range(pulls):
        chosen.append(choice.choose("p", KV_BYTES))
        choice.observe("p", link.carry(chosen[-1]))
    return chosen


@pytest.mark.parametrize(
    ("gbit_per_s", "codec"), [(1, Codec.FP8), (10, Codec.FP8), (100, Codec.NONE)]
)
def test_slow_links_get_packed_kv_and_fast_ones_do_not(gbit_per_s, codec):
    chosen = used(CodecChoice([FP8, INT8]), EmulatedLink(gbit_per_s), 40)
    assert chosen == [Codec.NONE] + [codec] * 39, "the first pull measures the link"


def test_the_border_lies_where_both_take_equally_long():
    border = FP8.critical_bytes_per_s
    assert FP8.seconds_per_byte(border) == pytest.approx(1 / border)
    for factor, codec in ((0.9, Codec.FP8), (1.1, Codec.NONE)):
        link = EmulatedLink(8e-9 * factor * border, latency_s=0)
        assert used(CodecChoice([FP8]), link, 10)[-1] is codec


def test_a_codec_that_takes_longer_than_promised_is_left_for_the_next_best():
    link = EmulatedLink(10)
    link.slower = {Codec.FP8: 10.0}
    chosen = used(CodecChoice([FP8, INT8]), link, 60)
    assert chosen[1] is Codec.FP8
    assert chosen.count(Codec.FP8) <= 3
    assert chosen[-1] is Codec.INT8


def test_a_codec_that_was_left_is_tried_again_and_kept_when_it_has_recovered():
    link, choice = EmulatedLink(10), CodecChoice([FP8])
    link.slower = {Codec.FP8: 10.0}
    assert used(choice, link, 20)[-1] is Codec.NONE
    link.slower = {}
    assert used(choice, link, 200)[-1] is Codec.FP8


def test_what_is_held_against_a_codec_on_one_peer_says_nothing_about_another():
    slow, choice = EmulatedLink(10), CodecChoice([FP8])
    slow.slower = {Codec.FP8: 10.0}
    used(choice, slow, 20)
    choice.observe("q", EmulatedLink(10).carry(Codec.NONE))
    assert choice.choose("q", KV_BYTES) is Codec.FP8
    assert choice.choose("p", KV_BYTES) is Codec.NONE


def test_small_pulls_travel_as_they_are_and_teach_nothing():
    choice, link = CodecChoice([FP8]), EmulatedLink(100)
    choice.observe("p", link.carry(Codec.NONE, BYTES_MIN - 1))
    assert choice.link_bytes_per_s("p") == 0
    choice.observe("p", EmulatedLink(1).carry(Codec.NONE))
    assert choice.choose("p", BYTES_MIN - 1) is Codec.NONE
    assert choice.choose("p", BYTES_MIN) is Codec.FP8


def test_a_link_that_becomes_fast_is_noticed_although_only_packed_kv_travels():
    choice = CodecChoice([FP8])
    assert used(choice, EmulatedLink(1), 10)[-1] is Codec.FP8
    assert used(choice, EmulatedLink(200, latency_s=0), 40)[-1] is Codec.NONE


def test_a_forgotten_peer_is_a_stranger():
    choice = CodecChoice([FP8])
    choice.observe("p", EmulatedLink(1).carry(Codec.NONE))
    choice.forget("p")
    choice.forget("p")
    assert choice.choose("p", KV_BYTES) is Codec.NONE


def test_without_codecs_everything_travels_as_it_is():
    assert set(used(CodecChoice([]), EmulatedLink(0.1), 5)) == {Codec.NONE}
