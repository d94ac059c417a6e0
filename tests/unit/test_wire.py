import types
from typing import get_args

import msgspec
import pytest

from tercet import wire
from tercet.ids import BlockId, Epoch, Incarnation, RequestId, WorkerId
from tercet.request import FinishReason, RequestSpec, Sampling, TokenLogprobs
from tercet.role import Role
from tercet.wire import Message

SPEC = RequestSpec(
    id=RequestId("req-1"),
    prompt=[1, 70_000, 3],
    sampling=Sampling(max_tokens=5, temperature=0.7, logit_bias={3: -1.5}, stop_token_ids=(2, 9)),
    tenant_salt="t",
)
SOURCE = wire.Endpoint(
    worker=WorkerId("prefill-0"),
    incarnation=Incarnation("5f0c"),
    role=Role.PREFILL,
    host="127.0.0.1",
    port=7000,
    host_id="h",
    unix="/run/prefill-0",
)
REQUEST, EPOCH, BLOCKS = RequestId("req-1"), Epoch(3), [BlockId(4), BlockId(9)]

SAMPLES: list[Message] = [
    wire.Hello(1, "lab", "decode-1", Incarnation("a"), Incarnation("b"), "llama/16", b"\x00agent"),
    wire.Hello(1, "lab", "door-1", Incarnation("a"), Incarnation("b"), learns=True),
    wire.Welcome(1, WorkerId("prefill-0"), Incarnation("b")),
    wire.Welcome(
        1, WorkerId("prefill-0"), Incarnation("b"), wire.KvRegion(b"n", 2**47, 40960, 64, 2**46)
    ),
    wire.Welcome(
        1, WorkerId("p"), Incarnation("b"), staged=wire.KvRegion(b"n", 2**47, 40960, 64, 2**46)
    ),
    wire.Refuse("another cluster"),
    wire.Ping(),
    wire.Submit(SPEC, EPOCH, [7, 8], hand_off=True, names=b"prefix-1"),
    wire.Adopt(SPEC, EPOCH, SOURCE, EPOCH, [7], b"prefix-1", live=True),
    wire.Resume(REQUEST, EPOCH, EPOCH),
    wire.Cancel(REQUEST, EPOCH),
    wire.Started(REQUEST, EPOCH),
    wire.Tokens(REQUEST, EPOCH, 2, [5, 6]),
    wire.Tokens(
        REQUEST,
        EPOCH,
        2,
        [5],
        logprobs=[TokenLogprobs(-0.25, [(5, -0.25), (6, -2.0)])],
        finish=FinishReason.STOP,
        usage=wire.Usage(cached_tokens=32, pulled_bytes=40960, pull_s=0.002, recomputed=True),
    ),
    wire.HandedOff(REQUEST, EPOCH, wire.Usage(computed_tokens=3)),
    wire.Refused(REQUEST, EPOCH, "queue full", 0.5),
    wire.Failed(REQUEST, EPOCH, "prompt too long", retryable=False),
    wire.MoveWanted(REQUEST, EPOCH, WorkerId("decode-1")),
    wire.LoadReport(Role.DECODE, 1, 2, 3, 4, 5, 6, 100, 50, decode_coefficients=(1e-3, 1e-5, 0.0)),
    wire.LoadReport(Role.DECODE, 1, 2, 3, 4, 5, 6, 100, 50, front_doors=3),
    wire.LoadReport(Role.DECODE, 1, 2, 3, 4, 5, 6, 100, 50, host=wire.TierFigures(blocks=7)),
    wire.Learned(b"prefix-1prefix-2"),
    wire.Pull(REQUEST, EPOCH, 2),
    wire.Pull(REQUEST, EPOCH, 2, codec="int8"),
    wire.Took(REQUEST, EPOCH, 7),
    wire.Renew([(REQUEST, EPOCH), (RequestId("req-2"), Epoch(0))]),
    wire.Release(REQUEST, EPOCH, committed=True),
    wire.Ready(REQUEST, EPOCH, 2, BLOCKS, [2**63, 8], 64),
    wire.Ready(REQUEST, EPOCH, 2, BLOCKS, [2**63, 8], 64, BLOCKS, [2**63, 8], 0.5),
    wire.Commit(REQUEST, EPOCH, [7], 16),
    wire.Freeze(REQUEST, EPOCH),
    wire.Stalled(REQUEST, EPOCH, "silent"),
    wire.Gone(REQUEST, EPOCH, wire.GoneReason.FINISHED),
]

UNIONS: dict[str, types.UnionType] = {
    "front door to worker": wire.FrontDoorMessage,
    "worker to front door": wire.WorkerMessage,
    "destination to source": wire.DestinationMessage,
    "source to destination": wire.SourceMessage,
}


def test_there_is_a_sample_of_every_message() -> None:
    assert {type(sample) for sample in SAMPLES} == {
        kind for kind in Message.__subclasses__() if kind.__module__ == wire.__name__
    }


@pytest.mark.parametrize("union", UNIONS.values(), ids=list(UNIONS))
def test_every_message_of_a_direction_round_trips_in_one_frame(union: types.UnionType) -> None:
    frame = [sample for sample in SAMPLES if isinstance(sample, get_args(union))]
    decoder = msgspec.msgpack.Decoder(list[union])  # type: ignore[valid-type]
    assert decoder.decode(msgspec.msgpack.encode(frame)) == frame


@pytest.mark.parametrize("union", UNIONS.values(), ids=list(UNIONS))
def test_a_message_of_another_direction_is_refused(union: types.UnionType) -> None:
    strangers = [sample for sample in SAMPLES if not isinstance(sample, get_args(union))]
    assert strangers
    for stranger in strangers:
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode(stranger), type=union)


def test_an_unknown_tag_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="Reboot"):
        msgspec.msgpack.decode(msgspec.msgpack.encode(["Reboot", 1]), type=wire.FrontDoorMessage)


def test_a_message_that_ends_too_early_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(
            msgspec.msgpack.encode(["Cancel", "req-1"]), type=wire.FrontDoorMessage
        )


def test_a_field_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="Expected `int`"):
        msgspec.msgpack.decode(
            msgspec.msgpack.encode(["Cancel", "req-1", "now"]), type=wire.FrontDoorMessage
        )


def test_a_longer_message_of_a_newer_process_is_still_read() -> None:
    # Fields are only ever added at the end; what an older process does not know, it skips.
    newer = msgspec.msgpack.encode(["Cancel", "req-1", 3, "because"])
    assert msgspec.msgpack.decode(newer, type=wire.FrontDoorMessage) == wire.Cancel(REQUEST, EPOCH)


class OlderSubmit(Message, frozen=True, tag="Submit"):
    """As it was before it had names."""

    spec: RequestSpec
    epoch: Epoch
    output: list[int]
    hand_off: bool = False


class OlderHello(Message, frozen=True, tag="Hello"):
    """As it was before front doors learned."""

    protocol: int
    cluster: str
    sender: str
    incarnation: Incarnation
    expects: Incarnation
    compat: str = ""
    agent: bytes = b""


def test_orders_are_read_by_a_worker_that_is_older_or_newer() -> None:
    older = msgspec.msgpack.encode(OlderSubmit(SPEC, EPOCH, [7], hand_off=True))
    newer = msgspec.msgpack.encode(wire.Submit(SPEC, EPOCH, [7], hand_off=True, names=b"prefix-1"))
    assert msgspec.msgpack.decode(newer, type=OlderSubmit) == OlderSubmit(
        SPEC, EPOCH, [7], hand_off=True
    )
    assert msgspec.msgpack.decode(older, type=wire.FrontDoorMessage) == wire.Submit(
        SPEC, EPOCH, [7], hand_off=True
    )


def test_a_front_door_learns_only_if_it_says_so_and_an_older_worker_does_not_mind() -> None:
    named = (1, "lab", "door-1", Incarnation("a"), Incarnation("b"))
    older = msgspec.msgpack.encode(OlderHello(*named))
    newer = msgspec.msgpack.encode(wire.Hello(*named, learns=True))
    assert msgspec.msgpack.decode(newer, type=OlderHello) == OlderHello(*named)
    hello = msgspec.msgpack.decode(older, type=wire.Hello)
    assert (hello, hello.learns) == (wire.Hello(*named), False)


def test_an_older_worker_reports_no_front_doors() -> None:
    report = wire.LoadReport(Role.DECODE, 1, 2, 3, 4, 5, 6, 100, 50, front_doors=3)
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(report))
    assert fields[-5:] == [3, False, 0, 0, {}]
    older = msgspec.msgpack.encode(fields[:-5])
    decoded = msgspec.msgpack.decode(older, type=wire.LoadReport)
    assert (decoded.front_doors, decoded.draining, decoded.urgent) == (0, False, 0)


def test_one_token_costs_few_bytes() -> None:
    message = wire.Tokens(RequestId("req-" + "0" * 24), Epoch(1), 100, [5000])
    assert len(msgspec.msgpack.encode(message)) <= 48


def test_membership_round_trips() -> None:
    membership = wire.Membership(version=7, workers=(SOURCE,))
    encoded = msgspec.msgpack.encode(membership)
    assert msgspec.msgpack.decode(encoded, type=wire.Membership) == membership
