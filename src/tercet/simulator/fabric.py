"""The network between simulated workers: messages that arrive later, and KV that takes its time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tercet.ids import BlockId
from tercet.simulator.engine_model import EngineModel
from tercet.simulator.timeline import Timeline
from tercet.wire import Commit, Freeze, Gone, Pull, Ready, Release, Renew, Took
from tercet.workers.transfer import Pulled, PullFailed, PullJob

FromReader = Pull | Freeze | Took | Renew | Release
FromSource = Ready | Commit | Gone


class Member(Protocol):
    """A worker on the network, which knows it under the name of its agent."""

    agent: str

    def linked(self, source: str, there: bool) -> None:
        """The link that was asked for stands, or there is nobody."""

    def from_reader(self, reader: str, message: FromReader) -> None: ...
    def from_source(self, source: str, message: FromSource) -> None: ...
    def unlinked(self, peer: str) -> None:
        """The link with that worker is lost, whoever pulled from whom."""

    def pulled(self, event: Pulled | PullFailed) -> None: ...
    def beat(self) -> None:
        """Time has passed."""

    def generations(self, blocks: Sequence[BlockId]) -> tuple[int, ...]: ...


@dataclass(slots=True)
class Adapter:
    """Until when a machine's is busy with what it has been given, each way."""

    receives_until_s: float = 0.0
    sends_until_s: float = 0.0


class Fabric:
    """Everybody who is there. Links cost nothing but the time to open them; the loss of one is noticed `dead_after_s` late."""

    def __init__(self, timeline: Timeline, model: EngineModel, dead_after_s: float) -> None:
        self._timeline, self._dead_after_s = timeline, dead_after_s
        self._latency_s, self._bytes_per_s = model.latency_s, model.bandwidth_bytes_per_s
        self._members: dict[str, Member] = {}
        self._adapters: dict[str, Adapter] = {}

    def join(self, member: Member) -> None:
        self._members[member.agent], self._adapters[member.agent] = member, Adapter()

    def leave(self, member: Member) -> None:
        """It is dead. Nothing reaches it, and its peers will notice."""
        del self._members[member.agent], self._adapters[member.agent]
        self._timeline.call_later(self._dead_after_s, self.unlink, member)

    def unlink(self, member: Member) -> None:
        """All its links are lost, as its peers see it."""
        for peer in list(self._members.values()):
            if peer is not member:
                peer.unlinked(member.agent)

    # ---- messages ----------------------------------------------------------------------------------------------------

    def open(self, reader: Member, source: str) -> None:
        """There and back; `linked` follows."""
        self._timeline.call_later(2 * self._latency_s, self._open, reader, source)

    def to_source(self, reader: str, source: str, message: FromReader) -> None:
        self._timeline.call_later(self._latency_s, self._to_source, reader, source, message)

    def to_reader(self, source: str, reader: str, message: FromSource) -> None:
        self._timeline.call_later(self._latency_s, self._to_reader, source, reader, message)

    def _open(self, reader: Member, source: str) -> None:
        reader.linked(source, source in self._members)

    def _to_source(self, reader: str, source: str, message: FromReader) -> None:
        member = self._members.get(source)
        if member is not None:
            member.from_reader(reader, message)

    def _to_reader(self, source: str, reader: str, message: FromSource) -> None:
        member = self._members.get(reader)
        if member is not None:
            member.from_source(source, message)

    # ---- KV ----------------------------------------------------------------------------------------------------------

    def pull(self, reader: Member, job: PullJob, bytes_: int) -> None:
        """Both adapters serve what they are given one after the other; bytes that have left wait for nobody but the second.

        `pulled` follows, whether the reader's or the source's process then runs or not: reads are one-sided.
        """
        now_s, wire_s = self._timeline.now_s(), bytes_ / self._bytes_per_s
        here, there = self._adapters[reader.agent], self._adapters.get(job.peer)
        sends_s = now_s
        if there is not None:
            sends_s = max(now_s, there.sends_until_s)
            there.sends_until_s = sends_s + wire_s
        here.receives_until_s = max(sends_s, here.receives_until_s) + wire_s
        done_s = here.receives_until_s + self._latency_s
        self._timeline.call_at(done_s, self._pulled, reader, job, bytes_, now_s)

    def _pulled(self, reader: Member, job: PullJob, bytes_: int, since_s: float) -> None:
        source = self._members.get(job.peer)
        if source is None:
            event: Pulled | PullFailed = PullFailed(job.id, f"{job.peer} is gone", in_flight=False)
        elif job.generations == source.generations(job.remote_blocks):
            event = Pulled(job.id, bytes_, self._timeline.now_s() - since_s)
        else:
            event = PullFailed(job.id, "blocks were overwritten", in_flight=False)
        reader.pulled(event)
