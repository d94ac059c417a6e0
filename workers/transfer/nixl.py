"""NIXL as an agent: registration, descriptors, posts. The only module that knows it, its exceptions and its environment."""

import importlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np

from tercet.config import TransferConfig
from tercet.errors import TransferFailed
from tercet.wire import KvRegion
from tercet.workers.transfer.base import HOST, Kind, Memory, OpenAgent, Spans, Words
from tercet.workers.transfer.words import WORD_BYTES

logger = logging.getLogger(__name__)

_ENVIRONMENT = {
    "NIXL_LOG_LEVEL": "FATAL",
    "UCX_LOG_LEVEL": "fatal",
    # Without these a cut cable is noticed after a minute; with them after six seconds. Our own deadlines are shorter, but
    # a read in quarantine is only let go when UCX gives up on it.
    "UCX_TCP_USER_TIMEOUT": "2s",
    "UCX_KEEPALIVE_INTERVAL": "1s",
    "UCX_TCP_KEEPIDLE": "1s",
    "UCX_TCP_KEEPINTVL": "1s",
    "UCX_TCP_KEEPCNT": "3",
}
"""Read by UCX and NIXL when they are loaded; what an operator has set wins."""


class _Handle(Protocol):
    """An opaque transfer request."""


class _Descriptors(Protocol):
    """An opaque descriptor list."""


class _Nixl(Protocol):
    """The part of `nixl_agent` that is used here."""

    def register_memory(
        self, reg_list: list[tuple[int, int, int, str]], mem_type: str
    ) -> object: ...
    def get_agent_metadata(self) -> bytes: ...
    def add_remote_agent(self, metadata: bytes) -> bytes: ...
    def make_connection(self, remote_agent: str) -> None: ...
    def remove_remote_agent(self, agent: str) -> None: ...
    def get_xfer_descs(self, descs: Words, mem_type: str) -> _Descriptors: ...
    def initialize_xfer(
        self, operation: str, local: _Descriptors, remote: _Descriptors, agent: str
    ) -> _Handle: ...
    def transfer(self, handle: _Handle) -> str: ...
    def check_xfer_state(self, handle: _Handle) -> str: ...
    def release_xfer_handle(self, handle: _Handle) -> None: ...
    def get_new_notifs(self) -> dict[str, list[bytes]]: ...


class _Errors(NamedTuple):
    """NIXL's exceptions have no base of their own; these are all of them."""

    classes: tuple[type[Exception], ...]

    @contextmanager
    def mapped(self, doing: str) -> Iterator[None]:
        """Theirs become ours, here and nowhere else."""
        try:
            yield
        except self.classes as exc:
            raise TransferFailed(f"{doing}: {type(exc).__name__} {exc}") from exc


def nixl_backend(config: TransferConfig) -> OpenAgent:
    """The NIXL backend; loads the library, whose environment is set here, once a process."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if config.net_devices:
        os.environ["UCX_NET_DEVICES"] = config.net_devices
    # Its logging set-up writes to standard output and mutes errors in everybody's handlers: taken back.
    raise_exceptions = logging.raiseExceptions
    api = importlib.import_module("nixl_cu12._api")  # `import nixl` would go looking for torch
    logging.raiseExceptions = raise_exceptions
    chatter = logging.getLogger("nixl")
    chatter.handlers.clear()
    chatter.propagate = True
    chatter.setLevel(logging.ERROR)
    bindings = importlib.import_module("nixl_cu12._bindings")
    errors = _Errors(
        tuple(
            kind
            for kind in vars(bindings).values()
            if isinstance(kind, type) and issubclass(kind, Exception)
        )
    )

    def open_agent(
        name: str, memory: Memory, arrivals: Words, staging: Sequence[Memory]
    ) -> NixlAgent:
        with errors.mapped(f"opening NIXL agent {name}"):
            settings = api.nixl_agent_config(enable_prog_thread=False, backends=["UCX"])
            agent: _Nixl = api.nixl_agent(name, settings)
            return NixlAgent(agent, errors, memory, arrivals, staging)

    return open_agent


class NixlAgent:
    """An `Agent` over one NIXL agent with the UCX backend. All memory is registered once."""

    def __init__(
        self,
        agent: _Nixl,
        errors: _Errors,
        memory: Memory,
        arrivals: Words,
        staging: Sequence[Memory],
    ) -> None:
        self._nixl: _Nixl | None = agent
        self._errors = errors
        self._device = memory.device
        self._regions: dict[str, KvRegion] = {}
        words = [(arrivals.ctypes.data, arrivals.nbytes, 0, "")]
        blocks = []
        for each in (memory, *staging):
            assert each.device == memory.device, "packed blocks lie where blocks lie"
            words.append((each.generation_address, each.blocks * WORD_BYTES, 0, ""))
            size = each.blocks * each.block_bytes
            blocks.append((each.address, size, max(each.device, 0), ""))
        self._registered = [
            agent.register_memory(blocks, _memory_type(memory.device)),
            agent.register_memory(words, "DRAM"),
        ]
        self._metadata = agent.get_agent_metadata()

    @property
    def metadata(self) -> bytes:
        return self._metadata

    def add_peer(self, peer: str, region: KvRegion) -> None:
        with self._errors.mapped(f"reaching {peer}"):
            name = self._agent.add_remote_agent(region.agent).decode()
        if name != peer:
            self._agent.remove_remote_agent(name)
            raise TransferFailed(f"{peer} calls itself {name}")
        try:
            with self._errors.mapped(f"connecting to {peer}"):
                self._agent.make_connection(peer)
        except TransferFailed:
            self._agent.remove_remote_agent(peer)
            raise
        self._regions[peer] = region

    def remove_peer(self, peer: str) -> None:
        self._regions.pop(peer, None)
        try:
            with self._errors.mapped(f"leaving {peer}"):
                self._agent.remove_remote_agent(peer)
        except TransferFailed as exc:
            logger.warning("%s", exc)  # a dead peer; nothing of it is left that could be used

    def read(self, peer: str, kind: Kind, spans: Spans) -> "NixlRead":
        device = self._regions[peer].device if kind is Kind.BLOCKS else HOST
        own_device = self._device if kind is Kind.BLOCKS else HOST
        agent = self._agent
        with self._errors.mapped(f"reading from {peer}"):
            local = agent.get_xfer_descs(
                _descriptors(spans[:, 0], spans[:, 2], own_device), _memory_type(own_device)
            )
            remote = agent.get_xfer_descs(
                _descriptors(spans[:, 1], spans[:, 2], device), _memory_type(device)
            )
            handle = agent.initialize_xfer("READ", local, remote, peer)
        return NixlRead(agent, self._errors, handle, peer)

    def progress(self) -> None:
        self._agent.get_new_notifs()

    def close(self) -> None:
        # The destructor disconnects and is the only thing that stops a read; memory is let go with it.
        self._nixl = None

    @property
    def _agent(self) -> _Nixl:
        assert self._nixl is not None, "closed"
        return self._nixl


class NixlRead:
    """One posted READ. Its handle is released when NIXL says it has ended and never before."""

    def __init__(self, agent: _Nixl, errors: _Errors, handle: _Handle, peer: str) -> None:
        self._agent = agent
        self._errors = errors
        self._handle = handle
        self._peer = peer
        with self._released_on_error():
            self._state = agent.transfer(handle)

    def done(self) -> bool:
        with self._released_on_error():
            if self._state == "PROC":
                self._state = self._agent.check_xfer_state(self._handle)
            if self._state == "ERR":
                raise TransferFailed(f"reading from {self._peer}: NIXL reports an error")
        if self._state == "DONE":
            self._agent.release_xfer_handle(self._handle)
        return self._state == "DONE"

    @contextmanager
    def _released_on_error(self) -> Iterator[None]:
        try:
            with self._errors.mapped(f"reading from {self._peer}"):
                yield
        except TransferFailed:
            with self._errors.mapped(f"letting go of a failed read from {self._peer}"):
                self._agent.release_xfer_handle(self._handle)
            raise


def _memory_type(device: int) -> str:
    return "DRAM" if device == HOST else "VRAM"


def _descriptors(addresses: Words, lengths: Words, device: int) -> Words:
    """C-contiguous rows of `[address, length, device]`."""
    rows = np.empty((len(addresses), 3), dtype=np.uint64)
    rows[:, 0], rows[:, 1], rows[:, 2] = addresses, lengths, max(device, 0)
    return rows
