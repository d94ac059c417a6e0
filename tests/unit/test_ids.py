import re

from tercet.ids import new_incarnation, new_request_id


def test_incarnations_are_64_random_bits() -> None:
    drawn = {new_incarnation() for _ in range(1000)}
    assert len(drawn) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{16}", name) for name in drawn)


def test_request_ids_never_repeat_and_carry_their_prefix() -> None:
    drawn = {new_request_id() for _ in range(1000)}
    assert len(drawn) == 1000
    assert all(re.fullmatch(r"req-[0-9a-f]{24}", name) for name in drawn)
    assert new_request_id("cmpl").startswith("cmpl-")
