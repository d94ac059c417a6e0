"""The story of a request for people: a line for each stage, and a table of the workers considered."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tercet.cli.plain_table import plain_table
from tercet.router.dispatch import Detour
from tercet.router.dualmap import PairReason
from tercet.router.explanation import Explanation
from tercet.router.freeness import FreenessReason
from tercet.router.moves import MoveNote
from tercet.router.note import ChoiceNote
from tercet.router.record import Outcome, RequestRecord
from tercet.router.split import SplitReason

SPLIT_WORDS: dict[str, str] = {
    SplitReason.SHORT: "by the worker that decodes: too little to compute for a hand-off",
    SplitReason.NO_PREFILL: "by the worker that decodes: no prefill worker could be asked",
    SplitReason.PREFILL_SLOWER: "by the worker that decodes: the prefill pool would have been much later",
    SplitReason.APART: "by the prefill pool, then handed off",
}
CHOICE_WORDS: dict[str, str] = {
    PairReason.AFFINITY: "it has usefully more of it cached, and that is worth its load",
    PairReason.BALANCE: "neither of its pair has usefully more cached, and it is earlier or less loaded",
    PairReason.SWITCH: "the other of its pair has more cached, but is too slow, too full or too busy",
    PairReason.HOLDER: "it has usefully more of it cached than either of its pair",
    PairReason.ALONE: "it is the only one of its pair that could be asked",
    PairReason.ESCAPE: "neither of its pair would do, and it is the best of all",
    Detour.DRAWN: "it was idle while the request waited for another one, and begins with it sooner",
    FreenessReason.FREER: "nobody compared has more of it cached, and it has more room to go on decoding",
    FreenessReason.CROWDED: "another one has more of it cached, but is fuller than that is worth",
    FreenessReason.FULL: "nobody has room, and it is the best of all",
    Detour.EARLIEST: "the one chosen first would have been too late, and it is the earliest of all",
}
LOWEST_COST = "it costs least"
AT_ONCE_MS = 1.0
"""Shorter waits are not worth a word."""


def story(explanation: Explanation) -> list[RenderableType]:
    """What `tercet why` prints about what one front door knows, top to bottom."""
    parts: list[RenderableType] = []
    for record in explanation.requests:
        parts += [_head(record, explanation), _stages(record)]
        parts += [_candidates(record.choices)] if record.choices else []
    if explanation.waiting:
        waiting = (
            f"{explanation.waiting} more of this call at {explanation.front_door} wait for a worker"
        )
        parts.append(Text(waiting, "yellow"))
    return parts


def _head(record: RequestRecord, explanation: Explanation) -> Text:
    return Text.assemble((record.request, "bold"), f" at front door {explanation.front_door}")


def _stages(record: RequestRecord) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for at_ms, stage, text in _lines(record):
        table.add_row("" if at_ms is None else f"{at_ms:.1f} ms", stage, text)
    return table


def _lines(record: RequestRecord) -> Iterator[tuple[float | None, str, str]]:
    """When, what, how it was."""
    yield 0.0, "admitted", _admitted(record)
    yield None, "waited", _waited(record)
    if record.reason:
        words = SPLIT_WORDS.get(record.reason, "see docs/routing.md")
        yield record.queue_ms, "prefilled", f"{record.reason}: {words}"
    for choice in record.choices:
        yield None, "chosen", f"{choice.worker} to {_task(record, choice)}{_why(choice)}"
    if record.prefill_worker is not None:
        yield None, "handed off", _handed_off(record)
    yield record.ttft_ms, "first token", _first_token(record)
    for move in record.moves:
        yield move.at_ms, "moved" if _has_moved(move) else "to move", moved(move)
    if record.outcome is Outcome.RUNNING:
        yield record.total_ms, "running", f"{record.output_tokens} tokens so far"
    else:
        yield record.total_ms, "finished", _finished(record)


def _admitted(record: RequestRecord) -> str:
    session = f", session {record.session!r}" if record.session else ""
    tenant = f", tenant {record.tenant!r}" if record.tenant else ""
    priority = f", priority {record.priority}" if record.priority else ""
    return f"{record.prompt_tokens} prompt tokens{tenant}{session}{priority}"


def _waited(record: RequestRecord) -> str:
    told = "not at all"
    if record.queue_ms >= AT_ONCE_MS:
        told = f"{record.queue_ms:.1f} ms until a worker was first asked"
    counts = (
        (record.waits, "time no worker could be asked", "times no worker could be asked"),
        (record.refusals, "worker refused", "workers refused"),
        (record.replays, "replay after a loss", "replays after losses"),
    )
    parts = [f"{count} {one if count == 1 else many}" for count, one, many in counts if count]
    return ", ".join([told, *parts])


def _task(record: RequestRecord, choice: ChoiceNote) -> str:
    if record.prefill_worker is None:
        return "do everything"
    return choice.role


def _why(choice: ChoiceNote) -> str:
    """The policy's word and what it means; of a policy that has no words of ours its own word alone."""
    words = CHOICE_WORDS.get(choice.reason) if choice.reason else LOWEST_COST
    because = (f" by {choice.reason}" if choice.reason else "") + (f": {words}" if words else "")
    if not choice.candidates or not choice.candidates[0].hit_tokens:
        return because
    return f"{because} ({choice.candidates[0].hit_tokens} tokens thought cached)"


def _handed_off(record: RequestRecord) -> str:
    worker = record.decode_worker or "nobody yet"
    if record.recomputed:
        return f"to {worker}, which could not pull the KV and computed it itself"
    if not record.pulled_tokens:
        return f"to {worker}"
    packed = f" packed as {record.pulled_codec}" if record.pulled_codec != "none" else ""
    return (
        f"to {worker}: {record.pulled_tokens} tokens pulled, {record.pulled_bytes / 2**20:.2f} MiB{packed} in"
        f" {record.pull_ms:.1f} ms, which delayed the second token by {record.pull_exposed_ms:.1f} ms"
    )


def _first_token(record: RequestRecord) -> str:
    predicted_ms, error_ms = record.predicted_ttft_ms, record.ttft_error_ms
    predicted = "not predicted: the worker had not measured itself yet"
    if predicted_ms is not None:
        predicted = f"predicted {predicted_ms:.1f} ms"
    if record.dispatch_ttft_ms is None:
        return (
            f"not yet; {predicted}" if record.outcome is Outcome.RUNNING else f"none; {predicted}"
        )
    real = f"{record.dispatch_ttft_ms:.1f} ms from the dispatch"
    if error_ms is None:
        return f"{real}; {predicted}"
    return f"{real}; {predicted}, {abs(error_ms):.1f} ms {'later' if error_ms > 0 else 'earlier'}"


def _has_moved(move: MoveNote) -> bool:
    return move.took_ms is not None and not move.reason


def moved(move: MoveNote) -> str:
    """How one move of a running request went."""
    way = f"{move.source} → {move.destination}"
    if move.took_ms is None:
        return f"{way}: under way"
    if move.reason:
        return f"{way}: stayed at {move.source}, after {move.took_ms:.1f} ms: {move.reason}"
    stall = "" if move.stall_ms is None else f", with {move.stall_ms:.1f} ms between two tokens"
    return f"{way}: taken over after {move.took_ms:.1f} ms{stall}"


def _finished(record: RequestRecord) -> str:
    cached = f", {record.cached_tokens} of the prompt were cached" if record.cached_tokens else ""
    pace = f", one in {record.itl_ms:.1f} ms" if record.itl_ms is not None else ""
    error = f": {record.error}" if record.error else ""
    return f"{record.outcome}{error}; {record.output_tokens} tokens{pace}{cached}"


def _candidates(choices: Sequence[ChoiceNote]) -> Table:
    shown = ", ".join(
        f"{choice.role} {len(choice.candidates)} of {choice.considered}" for choice in choices
    )
    numbers = ("cached", "load", "cost", "first token ms")
    table = plain_table(f"Candidates: {shown}", "", "worker", numbers=numbers)
    for choice in choices:
        for candidate in choice.candidates:
            chosen, ttft_ms = candidate.worker == choice.worker, candidate.predicted_ttft_ms
            table.add_row(
                "→" if chosen else "",
                candidate.worker,
                str(candidate.hit_tokens),
                str(candidate.load_tokens),
                f"{candidate.cost_tokens:.0f}",
                "-" if ttft_ms is None else f"{ttft_ms:.1f}",
                style="bold" if chosen else "",
            )
    return table
