import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.ids import Epoch, RequestId
from tercet.request import RequestSpec, Sampling, TokenLog


def test_tokens_are_appended_in_order() -> None:
    log = TokenLog()
    assert log.append(Epoch(0), 0, [5, 6]) == [5, 6]
    assert log.append(Epoch(0), 2, [7]) == [7]
    assert log.tokens == [5, 6, 7]


def test_a_known_index_is_dropped() -> None:
    log = TokenLog(tokens=[5, 6, 7])
    assert log.append(Epoch(0), 1, [6, 7]) == []
    assert log.append(Epoch(0), 1, [6, 7, 8]) == [8]
    assert log.tokens == [5, 6, 7, 8]


def test_a_stale_epoch_is_not_listened_to() -> None:
    log = TokenLog()
    log.append(Epoch(2), 0, [5])
    assert log.append(Epoch(1), 1, [9]) == []
    assert log.tokens == [5]


def test_a_new_owner_silences_the_old_one() -> None:
    log = TokenLog()
    log.append(Epoch(0), 0, [5])
    assert log.append(Epoch(1), 0, [5, 6]) == [6]
    assert log.append(Epoch(0), 2, [9]) == []
    assert log.fence == 1


def test_a_raised_fence_silences_an_owner_that_has_not_spoken() -> None:
    log = TokenLog()
    log.raise_fence(Epoch(2))
    assert log.append(Epoch(1), 0, [9]) == []
    assert log.append(Epoch(2), 0, [5]) == [5]


def test_a_fence_only_rises() -> None:
    log = TokenLog(fence=Epoch(3))
    with pytest.raises(AssertionError, match="only rises"):
        log.raise_fence(Epoch(3))


def test_a_gap_is_a_bug_and_leaves_the_log_alone() -> None:
    log = TokenLog(tokens=[5])
    with pytest.raises(AssertionError, match="gap"):
        log.append(Epoch(0), 2, [7])
    assert log.tokens == [5]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=12))
def test_repeated_and_overlapping_messages_give_the_log_once(
    messages: list[tuple[int, int]],
) -> None:
    """Each begins so many tokens before the end of the log, and brings so many new ones."""
    log, heard = TokenLog(), []
    for repeated, fresh in messages:
        index = max(0, len(log.tokens) - repeated)
        heard += log.append(Epoch(0), index, list(range(index, len(log.tokens) + fresh)))
    assert log.tokens == heard == list(range(sum(fresh for _, fresh in messages)))


SPEC = RequestSpec(id=RequestId("req-1"), prompt=[1, 2, 3], sampling=Sampling())


def test_a_specification_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        SPEC.priority = 3  # type: ignore[misc]


def test_the_hash_domain_is_what_separates_caches() -> None:
    spec = msgspec.structs.replace(SPEC, adapter_id="a", tenant_salt="t")
    assert spec.hash_domain != SPEC.hash_domain
    assert spec.hash_domain.adapter_id == "a"
    assert spec.hash_domain.tenant_salt == "t"


def test_a_short_specification_takes_less_than_100_bytes_and_round_trips() -> None:
    encoded = msgspec.msgpack.encode(SPEC)
    assert len(encoded) < 100
    assert msgspec.msgpack.decode(encoded, type=RequestSpec) == SPEC


def test_processes_that_do_not_know_the_last_fields_understand_each_other() -> None:
    """Fields are appended only, so that neither side misreads the other while workers are replaced one by one."""
    spec = RequestSpec(RequestId("r"), [1, 2], Sampling(), 3, "", "salt", kv_ttl_s=5.0, session="s")
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(spec))
    older = msgspec.msgpack.encode(sent[:6])
    understood = msgspec.msgpack.decode(older, type=RequestSpec)
    assert (understood.tenant_salt, understood.kv_ttl_s, understood.session) == ("salt", 0.0, "")
    newer = msgspec.msgpack.encode([*sent, "a field of the future"])
    assert msgspec.msgpack.decode(newer, type=RequestSpec) == spec
