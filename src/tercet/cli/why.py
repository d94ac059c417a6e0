"""Asks every front door of a cluster what it knows of a call."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from tercet.cli.doors import ask_all
from tercet.cli.finding import NotFound
from tercet.client import Client
from tercet.cluster.status import FrontDoorReport
from tercet.router.explanation import Explanation


@dataclass(frozen=True, slots=True)
class Answers:
    """What the front doors said, in the order in which they were asked."""

    known: tuple[Explanation, ...]
    """By those that know the call."""
    unknown: tuple[Explanation, ...]
    silent: tuple[str, ...]
    """`host:port: reason` of those that did not answer."""


def ask_doors(doors: Sequence[FrontDoorReport], request: str) -> Answers:
    """Ask all of them at once. Raises NotFound when none of them knows the call."""
    said = [answer for _, answer in ask_all(doors, lambda client: explain(client, request))]
    explanations = [one for one in said if isinstance(one, Explanation)]
    answers = Answers(
        known=tuple(one for one in explanations if one.is_known),
        unknown=tuple(one for one in explanations if not one.is_known),
        silent=tuple(one for one in said if isinstance(one, str)),
    )
    if not answers.known:
        raise NotFound(_nobody_knows(request, answers))
    return answers


def explain(client: Client, request: str) -> Explanation:
    """What that front door knows of the call. Raises TercetError."""
    return msgspec.json.decode(client.explain(request), type=Explanation)


def _nobody_knows(request: str, answers: Answers) -> str:
    if not answers.unknown:
        asked = f"; {'; '.join(answers.silent)}" if answers.silent else ""
        return f"no front door could be asked{asked}; see `tercet status`"
    kept = ", ".join(f"{one.kept} of at most {one.kept_max}" for one in answers.unknown)
    parts = [
        f"no front door remembers {request!r}; finished requests kept: {kept}",
        *(f"not asked, as it did not answer: {one}" for one in answers.silent),
        "take the id from the answer (its `id`, its header x-request-id, or the request_id of gRPC), and ask before as"
        " many newer requests have ended; a call that was refused before a worker was looked for leaves nothing",
    ]
    return "; ".join(parts)
