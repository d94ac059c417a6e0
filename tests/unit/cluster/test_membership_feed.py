"""A front door's polls, answered, refused and answered too late."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest import mock

import pytest

from tercet.cluster import membership_feed
from tercet.cluster.membership_feed import MembershipFeed
from tercet.cluster.status import FrontDoorReport
from tercet.errors import PeerLost
from tercet.ids import FrontDoorId
from tercet.wire import Membership

REPORT = FrontDoorReport(front_door=FrontDoorId("door"), grpc="")


class Script:
    """A `Poll`: gives the next answer, raises it, or is silent for ever when there is none."""

    def __init__(self, *answers: Membership | Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []
        self.told = asyncio.Event()

    async def __call__(
        self, after_version: int, wait_s: float, report: FrontDoorReport
    ) -> Membership | None:
        self.asked.append(after_version)
        if not self.answers:
            self.told.set()
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def feeding(script: Script) -> AsyncIterator[list[int]]:
    learned: list[int] = []
    feed = MembershipFeed(script, lambda news: learned.append(news.version), lambda: REPORT)
    with mock.patch.object(membership_feed, "RETRY_S", 0.001):
        task = asyncio.create_task(feed.run())
        async with asyncio.timeout(2.0):
            await script.told.wait()
            yield learned
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled(), task.exception()


async def test_news_are_told_once_and_asked_for_beyond_what_is_known():
    script = Script(Membership(3, ()), None, Membership(5, ()))
    async with feeding(script) as learned:
        assert learned == [3, 5]
        assert script.asked == [-1, 3, 3, 5]


@pytest.mark.parametrize("failure", [PeerLost("no such actor"), TimeoutError()])
async def test_whoever_gets_no_answer_keeps_what_is_known_and_asks_again(failure):
    script = Script(Membership(3, ()), failure, failure, Membership(4, ()))
    async with feeding(script) as learned:
        assert learned == [3, 4]
        assert script.asked == [-1, 3, 3, 3, 4]
