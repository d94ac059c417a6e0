"""The network: connections that keep order, and break; messages that are late; a handshake that may not be answered.

A connection is an ordered stream. So a lost message is a broken connection, and both ends notice it, each in its own time.
"""

import asyncio
from collections import deque
from typing import Self

from faults.process import Process
from faults.story import Story
from tercet.config import LinkConfig
from tercet.errors import PeerLost, PeerRefused
from tercet.simulator.timeline import Timeline
from tercet.wire import Endpoint, Hello, Message, Refuse, Welcome


class End:
    """One side of a connection; has the interface of `tercet.link.Link`."""

    def __init__(self, wire: "Wire", process: Process) -> None:
        self.wire, self.process = wire, process
        self.lost: str | None = None
        self.other: End
        self.arrives_s = 0.0
        """When the last message sent to here arrives."""
        self._closed = False
        self._inbox: deque[list[Message]] = deque()
        self._posted: list[Message] = []
        self._reader: asyncio.Future[None] | None = None
        process.ends.append(self)

    def post(self, *messages: Message) -> None:
        if self._closed or self.lost is not None:
            raise PeerLost(f"{self.other.process}: {self.lost}")
        if not self._posted:
            self.process.loop.call_soon(self._flush)
        self._posted += messages

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Message]:
        while not self._closed:
            if self._inbox:
                return self._inbox.popleft()
            if self.lost is not None:
                raise PeerLost(f"{self.other.process}: {self.lost}")
            self._reader = self.process.loop.create_future()
            await self._reader
        raise StopAsyncIteration

    async def close(self) -> None:
        self._flush()
        if not self._closed:
            self._closed = True
            self._forget()
            self.wire.hang_up(self)

    def receive(self, frame: list[Message]) -> None:
        if self.lost is None and not self._closed:
            self.wire.network.story.heard(self.process, self.other.process, frame)
            self._inbox.append(frame)
            self._wake()

    def lose(self, reason: str) -> None:
        if self.lost is None:
            self.wire.network.story.tell(
                self.process, f"loses its link to {self.other.process}: {reason}"
            )
            self.lost = reason
            self._forget()
            self._wake()

    def _forget(self) -> None:
        if self in self.process.ends:
            self.process.ends.remove(self)

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    def _flush(self) -> None:
        batch, self._posted = self._posted, []
        if batch and self.lost is None:
            self.wire.carry(self, batch)


class Wire:
    """A connection between two processes."""

    def __init__(self, network: "Network", client: Process, server: Process) -> None:
        self.network = network
        self.client, self.server = End(self, client), End(self, server)
        self.client.other, self.server.other = self.server, self.client
        self.cut = False

    def carry(self, sender: End, batch: list[Message]) -> None:
        """Messages leave; the adversary says when they arrive, or that they never will."""
        for message in batch:
            if self.cut:
                return
            receiver = sender.other
            delay_s = self.network.chaos.carry(self, sender.process, receiver.process, message)
            if delay_s is None:
                self.network.story.tell(
                    sender.process, f"sends in vain: {message} to {receiver.process}"
                )
                self.snap("a message was lost")
                return
            at_s = max(receiver.arrives_s, self.network.timeline.now_s() + delay_s)
            receiver.arrives_s = at_s
            receiver.process.loop.call_at(at_s, receiver.receive, [message])

    def snap(self, reason: str) -> None:
        """Nothing passes any more; each end notices in its own time."""
        self.cut = True
        for end in (self.client, self.server):
            end.process.loop.call_later(self.network.chaos.notices_s(), end.lose, reason)

    def hang_up(self, end: End) -> None:
        """One end has closed: the other one reads to the end first, if nothing else is in the way."""
        if not self.cut:
            self.cut = True
            self._tell_last(end.other, "closed")

    def died(self, end: End, silent: bool) -> None:
        """The process at `end` is gone; its sockets are closed, unless its machine is gone as well."""
        self.cut = True
        if silent:
            end.other.process.loop.call_later(
                self.network.silence_s(), end.other.lose, "silent for too long"
            )
        else:
            self._tell_last(end.other, "closed")

    def silent(self, end: End, stops: int) -> None:
        """The process at `end` has said nothing for a while: if it was stopped all the time, it is given up."""
        process = end.process
        if process.stopped and process.stops == stops and not self.cut:
            self.cut = True
            end.other.lose("silent for too long")
            process.loop.call_soon(end.lose, "closed")

    def _tell_last(self, end: End, reason: str) -> None:
        at_s = max(end.arrives_s, self.network.timeline.now_s() + self.network.chaos.latency_s())
        end.process.loop.call_at(at_s, end.lose, reason)


class Network:
    """Who can be reached, and how."""

    def __init__(self, timeline: Timeline, config: LinkConfig, chaos: object, story: Story) -> None:
        self.timeline, self.chaos, self.story = timeline, chaos, story
        self._config = config
        self.servers: dict[str, Process] = {}
        """By address: whoever lives there now."""
        self.silent: set[str] = set()
        """Addresses whose machine is gone: not even a refusal comes from there."""

    def silence_s(self) -> float:
        """How long it takes to notice that somebody says nothing any more."""
        return self._config.dead_after_s + self.chaos.dice.uniform(0, self._config.heartbeat_s)

    # ---- faults ------------------------------------------------------------------------------------------------------

    def kill(self, process: Process, *, silent: bool = False) -> None:
        self.story.tell(process, "dies" + (" with its machine" if silent else ""))
        if self.servers.get(process.address) is process:
            del self.servers[process.address]
            if silent:
                self.silent.add(process.address)
        for end in list(process.ends):
            end.wire.died(end, silent)
        process.ends.clear()
        process.loop.kill()

    def stop(self, process: Process) -> None:
        self.story.tell(process, "is stopped")
        process.loop.stop()
        process.stops += 1
        for end in process.ends:
            self.timeline.call_later(self.silence_s(), end.wire.silent, end, process.stops)

    def resume(self, process: Process) -> None:
        if process.alive and process.stopped:
            self.story.tell(process, "goes on")
            process.loop.resume()

    # ---- opening -----------------------------------------------------------------------------------------------------

    async def open(self, client: Process, endpoint: Endpoint, hello: Hello) -> tuple[End, Welcome]:
        answer: asyncio.Future[tuple[End, Welcome]] = client.loop.create_future()
        timer = client.loop.call_later(
            self._config.dead_after_s, self._refuse, answer, PeerLost("no answer")
        )
        self.timeline.call_later(
            self.chaos.latency_s(), self._knock, client, endpoint, hello, answer
        )
        try:
            return await answer
        finally:
            timer.cancel()

    def _knock(
        self, client: Process, endpoint: Endpoint, hello: Hello, answer: asyncio.Future
    ) -> None:
        server = self.servers.get(endpoint.unix)
        if server is not None:
            server.loop.call_soon(self._accept, client, server, hello, answer)
        elif endpoint.unix not in self.silent:
            error = PeerLost(f"{endpoint.unix}: nobody listens")
            client.loop.call_later(self.chaos.latency_s(), self._refuse, answer, error)

    def _accept(
        self, client: Process, server: Process, hello: Hello, answer: asyncio.Future
    ) -> None:
        welcome = server.answer(hello)
        delay_s = self.chaos.latency_s()
        if isinstance(welcome, Refuse):
            client.loop.call_later(delay_s, self._refuse, answer, PeerRefused(welcome.reason))
            return
        if answer.done() or not client.alive:
            return
        wire = Wire(self, client, server)
        wire.client.arrives_s = self.timeline.now_s() + delay_s
        self.story.tell(server, f"welcomes {client}")
        server.serve(hello, wire.server)
        client.loop.call_later(delay_s, self._welcome, answer, wire.client, welcome)

    def _refuse(self, answer: asyncio.Future, error: Exception) -> None:
        if not answer.done():
            answer.set_exception(error)

    def _welcome(self, answer: asyncio.Future, end: End, welcome: Welcome) -> None:
        if answer.done():
            end.wire.snap("the handshake came too late")
        else:
            answer.set_result((end, welcome))


async def connect(
    endpoint: Endpoint, hello: Hello, inbound: object, config: LinkConfig, host_id: str
) -> tuple[End, Welcome]:
    """Takes the place of `tercet.link.connect`."""
    process = asyncio.get_running_loop().process
    return await process.network.open(process, endpoint, hello)
