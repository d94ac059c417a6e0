"""The links to workers we pull from: one each, opened when first needed, shared by all hand-offs from that worker."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from tercet.config import LinkConfig
from tercet.errors import PeerLost, PeerRefused
from tercet.link import Link, connect
from tercet.wire import (
    Commit,
    Endpoint,
    Freeze,
    Gone,
    Hello,
    Pull,
    Ready,
    Release,
    Renew,
    SourceMessage,
    Took,
    Welcome,
)
from tercet.workers.move import Linked, LinkLost
from tercet.workers.transfer import Transfer

logger = logging.getLogger(__name__)

FromSource = Linked | LinkLost | Ready | Commit | Gone
Deliver = Callable[[str, FromSource], None]
"""Gets the source's agent name and what it says, or what happened to the link."""


def agent_name(endpoint: Endpoint) -> str:
    """The name of a worker's transfer agent: another life has another one."""
    return f"{endpoint.worker}:{endpoint.incarnation}"


@dataclass(slots=True)
class _Source:
    task: asyncio.Task[None]
    link: Link[SourceMessage] | None = None


class Sources:
    """Keeps a link to every source that was asked for, until it is lost. Used on the event loop only."""

    def __init__(
        self,
        greet: Callable[[Endpoint], Hello],
        config: LinkConfig,
        host_id: str,
        transfer: Transfer,
        deliver: Deliver,
    ) -> None:
        self._greet = greet
        self._config = config
        self._host_id = host_id
        self._transfer = transfer
        self._deliver = deliver
        self._sources: dict[str, _Source] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def require(self, endpoint: Endpoint) -> None:
        """See to it that there is a link; `Linked` or `LinkLost` is delivered, `Linked` at once if it stands."""
        name = agent_name(endpoint)
        source = self._sources.get(name)
        if source is None:
            task = asyncio.get_running_loop().create_task(self._serve(name, endpoint))
            self._sources[name] = _Source(task)
        elif source.link is not None:
            self._deliver(name, Linked())

    def post(self, name: str, message: Pull | Freeze | Took | Renew | Release) -> None:
        """Send to a source, if it is still there: that it is lost is delivered elsewhere."""
        source = self._sources.get(name)
        if source is None or source.link is None:
            return
        try:
            source.link.post(message)
        except PeerLost as exc:
            logger.debug("nothing reaches %s any more: %s", name, exc)  # `_serve` is about to end

    async def close(self) -> None:
        """End all links. Idempotent."""
        tasks = [source.task for source in self._sources.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, name: str, endpoint: Endpoint) -> None:
        reason = "closed by us"
        try:
            reason = await self._talk(name, endpoint)
        finally:
            del self._sources[name]
            self._transfer.remove_peer(name)
            self._deliver(name, LinkLost(reason))

    async def _talk(self, name: str, endpoint: Endpoint) -> str:
        """One link's life; returns why it ended."""
        link: Link[SourceMessage]
        welcome: Welcome
        try:
            link, welcome = await connect(
                endpoint, self._greet(endpoint), SourceMessage, self._config, self._host_id
            )
        except PeerRefused as exc:
            logger.warning("%s refuses to let us pull: %s", name, exc)
            return f"refused: {exc}"
        except PeerLost as exc:
            return str(exc)
        try:
            if welcome.kv is None:
                return "it has no KV to pull"
            self._transfer.add_peer(name, welcome.kv, welcome.staged, welcome.others)
            self._sources[name].link = link
            self._deliver(name, Linked())
            async for messages in link:
                for message in messages:
                    if isinstance(message, Ready | Commit | Gone):
                        self._deliver(name, message)
        except PeerLost as exc:
            return str(exc)
        finally:
            await link.close()
        return "closed by us"
