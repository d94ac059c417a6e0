"""A worker without an engine: speaks the real protocol over real links and computes tokens from their position.

For tests and measurements of the front door. Its tokens depend on the prompt and the position alone, as a real worker's do
on the log, so that a replayed or handed-off request can be checked for exact continuation. Workers that are to hand off to
each other share one `peers` dictionary; KV is not moved, only its arrival is pretended.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tercet.config import LinkConfig
from tercet.errors import PeerLost
from tercet.ids import Epoch, RequestId, WorkerId, new_incarnation
from tercet.link import Link, LinkServer, host_id
from tercet.request import FinishReason, RequestSpec
from tercet.role import Role
from tercet.wire import (
    PROTOCOL_VERSION,
    Adopt,
    Cancel,
    Endpoint,
    Failed,
    FrontDoorMessage,
    HandedOff,
    Hello,
    LoadReport,
    Message,
    MoveWanted,
    Refused,
    Resume,
    Started,
    Submit,
    Tokens,
    Usage,
    Welcome,
)

BLOCKS = 1024
"""Of KV memory that it says it has; what its running requests need of it counts as used."""
BLOCK_TOKENS = 16


def fake_token(spec: RequestSpec, index: int) -> int:
    """The output token at `index`: what every fake worker would generate."""
    return (sum(spec.prompt) * 31 + index * 7919 + spec.sampling.seed) % 32000


def fake_output(spec: RequestSpec) -> list[int]:
    """The whole output."""
    return [fake_token(spec, index) for index in range(spec.sampling.max_tokens)]


@dataclass(slots=True)
class Job:
    """One request on a fake worker."""

    spec: RequestSpec
    epoch: Epoch
    link: Link[Message]
    index: int
    hand_off: bool = False
    held: bool = False
    queued: bool = False
    pulled_tokens: int = 0


class FakeWorker:
    """Scripted by its public attributes, which may be changed at any time."""

    def __init__(
        self,
        worker: WorkerId,
        role: Role,
        *,
        cluster: str,
        link: LinkConfig,
        peers: dict[WorkerId, "FakeWorker"],
        step_s: float = 0.001,
    ) -> None:
        self.step_s = step_s
        """Time of one engine step, in which each running request gets one token."""
        self.refusals = 0
        """So many requests will be refused from now on."""
        self.frozen = False
        """Accepts and says nothing: no steps, no reports. Only the link's heartbeats go on."""
        self.starts = True
        """It begins with hand-offs; else they wait in its queue."""
        self.draining = False
        """It says that it is about to end."""
        self.heard: list[FrontDoorMessage] = []
        """Everything front doors said."""
        self.jobs: dict[RequestId, Job] = {}
        self._peers, self._cluster, self._config = peers, cluster, link
        self._worker, self._role = worker, role
        self._incarnation = new_incarnation()
        self._links: set[Link[Message]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._server = LinkServer(
            self._greet,
            self._serve,
            FrontDoorMessage,
            link,
            cluster=cluster,
            incarnation=self._incarnation,
        )

    async def start(self, unix: Path | None = None) -> Endpoint:
        """Listen on a free port, and on `unix` if given."""
        port = await self._server.listen("127.0.0.1", 0, unix)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._step()), loop.create_task(self._report())]
        self._peers[self._worker] = self
        return Endpoint(
            worker=self._worker,
            incarnation=self._incarnation,
            role=self._role,
            host="127.0.0.1",
            port=port,
            host_id=host_id(),
            unix=str(unix) if unix else "",
        )

    async def stop(self) -> None:
        """Die: links break, jobs are forgotten."""
        self._peers.pop(self._worker, None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.jobs.clear()
        await self._server.close()

    @property
    def links(self) -> int:
        """Front doors that are connected."""
        return len(self._links)

    def want_move(self, request: RequestId, to: WorkerId) -> None:
        """Ask for a request that runs here to be moved."""
        job = self.jobs[request]
        self._say(job.link, MoveWanted(request, job.epoch, to))

    def hand_over(self, request: RequestId, epoch: Epoch, *, live: bool) -> bool:
        """A peer takes the request over, if it is held here under `epoch`, or runs and is moved."""
        job = self.jobs.get(request)
        if job is None or job.epoch != epoch or not (job.held or live):
            return False
        del self.jobs[request]
        usage = Usage(computed_tokens=len(job.spec.prompt))
        self._say(job.link, HandedOff(request, epoch, usage))
        return True

    def _greet(self, hello: Hello) -> Welcome:
        return Welcome(PROTOCOL_VERSION, self._worker, self._incarnation)

    async def _serve(self, hello: Hello, link: Link[Message]) -> None:
        self._links.add(link)
        try:
            async for frame in link:
                for message in frame:
                    self._hear(link, message)
        finally:
            self._links.discard(link)
            self.jobs = {name: job for name, job in self.jobs.items() if job.link is not link}

    def _hear(self, link: Link[Message], message: Message) -> None:
        match message:
            case Submit(spec, epoch) | Adopt(spec, epoch) if self.refusals > 0:
                self.refusals -= 1
                self._say(link, Refused(spec.id, epoch, "scripted"))
            case Submit(spec, epoch, output, hand_off):
                job = Job(spec, epoch, link, len(output), hand_off, queued=hand_off)
                self.jobs[spec.id] = job
                self._begin(job)
            case Adopt(spec, epoch, output=output):
                job = Job(spec, epoch, link, len(output), held=True)
                self.jobs[spec.id] = job
                task = asyncio.get_running_loop().create_task(self._pull(job, message))
                self._tasks.append(task)
            case Resume(request, epoch):
                if request not in self.jobs:
                    self._say(link, Failed(request, epoch, "it is not here any more"))
            case Cancel(request, epoch):
                job_or_none = self.jobs.get(request)
                if job_or_none is not None and job_or_none.epoch <= epoch:
                    del self.jobs[request]
        if isinstance(message, Submit | Adopt | Cancel):
            self.heard.append(message)

    def _begin(self, job: Job) -> None:
        if job.queued and self.starts:
            job.queued = False
            self._say(job.link, Started(job.spec.id, job.epoch))

    async def _pull(self, job: Job, order: Adopt) -> None:
        """Wait until the source holds the request, or is gone: then begin from the prompt."""
        while self.jobs.get(job.spec.id) is job:
            peer = self._peers.get(order.source.worker)
            if peer is None or job.spec.id not in peer.jobs:
                break
            if peer.hand_over(job.spec.id, order.source_epoch, live=order.live):
                job.pulled_tokens = len(job.spec.prompt)
                break
            await asyncio.sleep(self.step_s)
        job.held = False

    async def _step(self) -> None:
        while True:
            await asyncio.sleep(self.step_s)
            if self.frozen:
                continue
            frames: dict[Link[Message], list[Message]] = {}
            for job in list(self.jobs.values()):
                self._begin(job)
                if not job.held and not job.queued:
                    frames.setdefault(job.link, []).append(self._advance(job))
            for link, messages in frames.items():
                self._say(link, *messages)

    def _advance(self, job: Job) -> Tokens:
        spec, index = job.spec, job.index
        job.index += 1
        tokens = [fake_token(spec, index)]
        if job.index >= spec.sampling.max_tokens:
            del self.jobs[spec.id]
            usage = Usage(
                computed_tokens=len(spec.prompt) - job.pulled_tokens,
                pulled_tokens=job.pulled_tokens,
                pulled_bytes=job.pulled_tokens * 1024,
            )
            return Tokens(
                spec.id, job.epoch, index, tokens, finish=FinishReason.LENGTH, usage=usage
            )
        job.held = job.hand_off
        return Tokens(spec.id, job.epoch, index, tokens)

    async def _report(self) -> None:
        while True:
            if not self.frozen:
                for link in list(self._links):
                    self._say(link, self._load())
            await asyncio.sleep(self._config.report_period_s)

    def _load(self) -> LoadReport:
        running = [job for job in self.jobs.values() if not job.held]
        contexts = [len(job.spec.prompt) + job.index for job in running]
        return LoadReport(
            role=self._role,
            waiting=0,
            running=len(running),
            holding=len(self.jobs) - len(running),
            pulling=0,
            pending_prefill_tokens=0,
            context_tokens=sum(contexts),
            blocks_total=BLOCKS,
            blocks_used=sum(-(-tokens // BLOCK_TOKENS) for tokens in contexts),
            draining=self.draining,
        )

    @staticmethod
    def _say(link: Link[Message], *messages: Message) -> None:
        try:
            link.post(*messages)
        except PeerLost:
            return  # its front door is gone; the link's own task clears its jobs
