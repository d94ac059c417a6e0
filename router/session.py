"""The link to one life of one worker: opened, listened to, opened again with backoff until it is retired.

Knows the link and the load reports that come over it, not requests: what the worker says of those goes to the listener, and
so does every loss.
"""

import asyncio
import logging
import random
from contextlib import suppress
from typing import Protocol

import msgspec

from tercet.clock import Clock
from tercet.config import LinkConfig
from tercet.errors import PeerLost, PeerRefused
from tercet.link import Link, connect
from tercet.router.events import WorkerWord
from tercet.wire import Endpoint, Hello, Learned, LoadReport, Message, MoveWanted, Refused

logger = logging.getLogger(__name__)

RETRY_S_MIN = 0.05
"""First delay before the worker is connected to again; doubles up to `RETRY_S_MAX`, and up to doubles again by chance."""
RETRY_S_MAX = 1.0
SUSPECT_REPORTS = 4
"""Reports that must be missing before a worker is suspect."""

Spoken = WorkerWord | MoveWanted | LoadReport | Learned


class Listener(Protocol):
    """Who is told what happens on the links. Called on the event loop; must not block."""

    def heard(self, word: WorkerWord) -> None:
        """A worker said something about a request."""

    def reported(self, worker: Endpoint) -> None:
        """A load report came."""

    def learned(self, worker: Endpoint, names: bytes) -> None:
        """Other front doors sent it prompts with these prefixes."""

    def wanted(self, worker: Endpoint, wish: MoveWanted) -> None:
        """The worker asks for a request of its own to be moved."""

    def connected(self, worker: Endpoint) -> None:
        """The worker can be sent requests."""

    def lost(self, worker: Endpoint, reason: str) -> None:
        """The link is gone, with everything this worker had of ours."""


class Session:
    """The link to one life of one worker. `run` is its owner task's whole work."""

    def __init__(
        self,
        endpoint: Endpoint,
        hello: Hello,
        *,
        config: LinkConfig,
        host_id: str,
        clock: Clock,
        listener: Listener,
    ) -> None:
        self.endpoint = endpoint
        self.retired = False
        """Out of the membership: it gets no new work, and when the link ends it is not opened again."""
        self.report: LoadReport | None = None
        self._heard_s = clock.now_s()
        self._link: Link[Spoken] | None = None
        self._hello, self._config, self._host_id = hello, config, host_id
        self._clock, self._listener = clock, listener
        self._delay_s = RETRY_S_MIN
        self._suspect_s = max(config.heartbeat_s, SUSPECT_REPORTS * config.report_period_s)

    @property
    def connected(self) -> bool:
        return self._link is not None

    @property
    def usable(self) -> bool:
        """Connected, part of the membership, and not about to leave it."""
        return self._link is not None and not self.retired and not self.draining

    @property
    def draining(self) -> bool:
        """The worker has said that it wants no more work, and to be rid of what it has."""
        return self.report is not None and self.report.draining

    def report_age_s(self, now_s: float) -> float:
        """Time since the last report, or since the link was opened."""
        return now_s - self._heard_s

    def suspect(self, now_s: float) -> bool:
        """Its reports are late. It may be dead, stopped or overrun; the link will know sooner or later."""
        return self.report_age_s(now_s) > self._suspect_s

    def post(self, message: Message) -> None:
        """Send soon. Without a link nothing is sent: the loss has been, or is just being, told to the listener."""
        if self._link is not None:
            with suppress(
                PeerLost
            ):  # `run` reads the same loss from the link and tells the listener
                self._link.post(message)

    async def run(self) -> None:
        """Connect, listen, connect again, until retired or cancelled."""
        complaint = ""
        while not self.retired:
            try:
                await self._connect_and_listen()
            except (PeerLost, PeerRefused) as exc:
                if str(exc) != complaint:  # not once per attempt
                    complaint = str(exc)
                    logger.warning("worker %s: %s", self.endpoint.worker, complaint)
            await asyncio.sleep(self._delay_s * (1 + random.random()))
            self._delay_s = min(2 * self._delay_s, RETRY_S_MAX)

    async def _connect_and_listen(self) -> None:
        link: Link[Spoken]
        link, _ = await connect(self.endpoint, self._hello, Spoken, self._config, self._host_id)
        reason = "closed"
        self._delay_s = RETRY_S_MIN
        self._link, self.report, self._heard_s = link, None, self._clock.now_s()
        self._listener.connected(self.endpoint)
        try:
            async for frame in link:
                self._deliver(frame)
        except PeerLost as exc:
            reason = str(exc)
            raise
        finally:
            self._link = None
            self._listener.lost(self.endpoint, reason)
            await link.close()

    def _deliver(self, frame: list[Spoken]) -> None:
        heard = self._listener.heard
        for message in frame:
            if isinstance(message, LoadReport):
                self.report, self._heard_s = message, self._clock.now_s()
                self._listener.reported(self.endpoint)
            elif isinstance(message, Learned):
                self._listener.learned(self.endpoint, message.names)
            elif isinstance(message, MoveWanted):
                self._listener.wanted(self.endpoint, message)
            elif isinstance(message, Refused) and self._correct(message):
                heard(
                    message
                )  # first: who reads the corrected report must know that the worker is closed
                self._listener.reported(self.endpoint)
            else:
                heard(message)

    def _correct(self, refused: Refused) -> bool:
        """A refusal brings what counts of a report; whether it did."""
        if self.report is None or refused.pending_tokens is None:
            return False
        self.report = msgspec.structs.replace(
            self.report, pending_prefill_tokens=refused.pending_tokens
        )
        self._heard_s = self._clock.now_s()
        return True
