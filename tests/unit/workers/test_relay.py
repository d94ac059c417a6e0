"""What a worker passes on between its front doors: to the others only, once, and not without bound."""

from tercet.wire import NAME_BYTES
from tercet.workers.relay import Relay


def names(*words: str) -> bytes:
    return b"".join(word.encode().ljust(NAME_BYTES, b".") for word in words)


def relay_of(*members: str, names_max: int = 100) -> Relay:
    relay = Relay(names_max)
    for member in members:
        relay.join(member)
    return relay


def test_each_learns_what_the_others_sent_and_nobody_what_it_sent_itself() -> None:
    relay = relay_of("f", "g", "h")
    relay.note("f", names("x", "y"))
    relay.note("g", names("z"))
    assert relay.take() == {
        "f": names("z"),
        "g": names("x", "y"),
        "h": names("z", "x", "y"),
    }


def test_nothing_is_told_twice() -> None:
    relay = relay_of("f", "g")
    relay.note("f", names("x"))
    assert relay.take() == {"g": names("x")}
    assert relay.take() == {}


def test_with_one_front_door_nothing_is_kept() -> None:
    relay = relay_of("f")
    relay.note("f", names("x"))
    relay.join("g")
    assert relay.take() == {}
    relay.note("g", b"")
    assert relay.take() == {}


def test_the_oldest_prompts_go_first_and_their_names_are_counted() -> None:
    relay = relay_of("f", "g", names_max=4)
    relay.note("f", names("a", "b", "c"))
    relay.note("f", names("d", "e"))
    relay.note("f", names("x", "y"))
    assert relay.names_dropped == 3
    assert relay.take() == {"g": names("x", "y", "d", "e")}
    relay.note("f", names("1", "2", "3", "4", "5"))
    assert (relay.take(), relay.names_dropped) == ({}, 8)
    relay.note("f", names("1", "2", "3", "4"))
    assert relay.take() == {"g": names("1", "2", "3", "4")}, "what was dropped takes no room"


def test_who_has_left_is_told_nothing_and_what_it_said_still_counts() -> None:
    relay = relay_of("f", "g")
    relay.note("f", names("x"))
    relay.leave("f")
    relay.leave("f")
    assert len(relay) == 1
    assert relay.take() == {"g": names("x")}
