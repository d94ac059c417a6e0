"""A blank does what a list of zeros does, as far as it does anything."""

from tercet.simulator.blank import Blank


def test_a_blank_is_a_list_of_zeros() -> None:
    blank, zeros = Blank(5), [0] * 5
    for tokens in (blank, zeros):
        tokens.append(0)
        tokens.extend([0, 0])
    assert len(blank) == len(zeros) == 8
    assert blank == zeros
    assert list(blank) == zeros
    assert blank[3:] == zeros[3:]
    assert blank[-1] == 0
    assert Blank(5) != [0] * 4
    assert Blank(0) == []
    assert not Blank(0)


def test_a_sum_is_another_one() -> None:
    prompt, given = Blank(3), [0]
    tokens = prompt + given
    tokens.append(0)
    assert (len(prompt), len(tokens)) == (3, 5)
    assert isinstance(tokens, Blank)
