"""Which requests a worker gives away when it is too full: Llumnix's "shortest running", the unimportant ones first. Pure."""

from collections.abc import Iterable

from tercet.workers.sequence import Phase, Sequence


def given_away(running: Iterable[Sequence], tokens: int) -> list[Sequence]:
    """Those that decode and are on no move, of at most so many tokens together; never all that run, for one who runs alone is
    nowhere better off."""
    sequences = list(running)
    movable = [s for s in sequences if _may_move(s)]
    chosen: list[Sequence] = []
    for sequence in sorted(movable, key=lambda s: (s.spec.priority, len(s.tokens), s.arrival)):
        if len(sequence.tokens) > tokens or len(chosen) == len(sequences) - 1:
            break
        tokens -= len(sequence.tokens)
        chosen.append(sequence)
    return chosen


def _may_move(sequence: Sequence) -> bool:
    return sequence.phase is Phase.RUNNING and sequence.remaining == 1 and not sequence.published
