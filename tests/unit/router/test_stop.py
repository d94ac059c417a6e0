from hypothesis import given
from hypothesis import strategies as st

from tercet.router.stop import StopStrings


def test_a_stop_string_is_found_across_pieces() -> None:
    stop = StopStrings(("END",))
    assert stop.feed("one E") == ("one ", False)
    assert stop.feed("N") == ("", False)
    assert stop.feed("D two") == ("", True)


def test_what_only_looked_like_a_stop_string_is_sent_after_all() -> None:
    stop = StopStrings(("END",))
    assert stop.feed("E") == ("", False)
    assert stop.feed("Nx") == ("ENx", False)


def test_what_is_held_at_the_end_is_plain_text() -> None:
    stop = StopStrings(("END",))
    assert stop.feed("the EN") == ("the ", False)
    assert stop.finish() == "EN"
    assert stop.finish() == ""


def test_the_earliest_of_several_hits_counts() -> None:
    assert StopStrings(("world", "lo")).feed("hello world") == ("hel", True)


def test_nothing_comes_after_a_hit() -> None:
    stop = StopStrings(("x",))
    assert stop.feed("ax") == ("a", True)
    assert stop.feed("more") == ("", True)
    assert stop.finish() == ""


def test_before_the_least_tokens_nothing_is_looked_for() -> None:
    stop = StopStrings(("x",))
    assert stop.feed("axb", armed=False) == ("axb", False)
    assert stop.feed("cx") == ("c", True)


@given(
    st.text("ab", max_size=30),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.data(),
)
def test_the_text_ends_where_the_first_stop_string_begins(
    text: str, strings: list[str], data: st.DataObject
) -> None:
    stop, sent, rest = StopStrings(tuple(strings)), "", text
    while rest:
        length = data.draw(st.integers(1, len(rest)))
        checked = stop.feed(rest[:length])
        sent, rest = sent + checked.text, rest[length:]
        if checked.stopped:
            break
    sent += stop.finish()
    # The earliest *end* decides: a stream cannot know of a string that begins earlier but ends later.
    ends = [text.find(s) + len(s) for s in strings if s in text]
    if not ends:
        assert sent == text
    else:
        assert not any(s in sent for s in strings)
        assert text.startswith(sent)
        assert len(sent) < min(ends)
