"""The process of a rank beyond the first.

Computes what it is told, in lockstep with the others, and ends when the worker does, however that ends.
"""

import logging
import mmap
import os
import socket
import sys
import threading

import torch
from torch._C._distributed_c10d import TCPStore

from tercet.errors import TercetError
from tercet.workers.engine_thread import SWITCH_INTERVAL_S
from tercet.workers.kv_pool import KvPool
from tercet.workers.model_runner import ModelRunner
from tercet.workers.parallel.group import HOST, Add, Group, nccl_sum
from tercet.workers.parallel.orders import (
    AddPeer,
    Compute,
    ExpectReaders,
    Join,
    Loaded,
    Opened,
    OpenTransfer,
    RemovePeer,
    Settings,
    Stop,
    Unable,
    WordOrder,
    WorkOrder,
)
from tercet.workers.parallel.part import load_part
from tercet.workers.parallel.pipe import Pipe
from tercet.workers.parallel.shared_sum import SharedSum
from tercet.workers.runner import Slice
from tercet.workers.transfer.backends import backend
from tercet.workers.transfer.base import PullJob
from tercet.workers.transfer.pool_memory import pool_memory
from tercet.workers.transfer.thread import TransferThread

logger = logging.getLogger(__name__)


class FollowerProcess:
    """The main thread computes, another one hears words."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._group = Group(settings.rank, settings.ranks)
        self._work: Pipe[WorkOrder] = Pipe(socket.socket(fileno=settings.work), WorkOrder)
        self._word: Pipe[WordOrder] = Pipe(socket.socket(fileno=settings.word), WordOrder)
        self._kv: KvPool | None = None
        self._transfer: TransferThread | None = None
        self._listener = threading.Thread(target=self._listen, name="words", daemon=True)

    def run(self) -> None:
        """Until the worker has no more work; raises what cannot be computed."""
        self._listener.start()
        try:
            runner = load_part(self._settings.model, self._settings.engine, self._group).runner
        except TercetError as exc:
            self._word.send(Unable(str(exc)))
            return
        self._kv = runner.kv
        self._word.send(Loaded())
        while (order := self._work.receive()) is not None:
            self._compute(runner, order)
        self._listener.join()

    def _compute(self, runner: ModelRunner, order: WorkOrder) -> None:
        match order:
            case Join(port=port):
                self._group.join(self._sum(port, runner.kv.device))
            case Compute(shares=shares):
                runner.forward([Slice(s.tokens, s.start, s.blocks, sample=False) for s in shares])

    def _sum(self, port: int, device: torch.device) -> Add:
        if device.type == "cpu":
            memory = mmap.mmap(self._settings.memory, 0)
            peers = [socket.socket(fileno=peer) for peer in self._settings.peers]
            return SharedSum(self._group.rank, memory, peers)
        store = TCPStore(HOST, port, self._group.ranks, is_master=False)
        return nccl_sum(store, self._group, device)

    def _listen(self) -> None:
        try:
            while (order := self._word.receive()) is not None:
                if isinstance(order, Stop):
                    if self._transfer is not None:
                        self._transfer.stop()
                    return
                self._obey(order)
        except BaseException as exc:
            self._failed(exc)
        os._exit(1)  # the worker is dead, and the main thread may be deep in a step

    def _obey(self, order: OpenTransfer | AddPeer | RemovePeer | ExpectReaders | PullJob) -> None:
        if isinstance(order, OpenTransfer):
            self._open_transfer(order)
            return
        assert self._transfer is not None, order
        match order:
            case AddPeer(peer=peer, region=region, others=others):
                self._transfer.add_peer(peer, region, others=others)
            case RemovePeer(peer=peer):
                self._transfer.remove_peer(peer)
            case ExpectReaders(readers=readers):
                self._transfer.expect_readers(readers)
            case PullJob():
                self._transfer.pull(order)

    def _open_transfer(self, order: OpenTransfer) -> None:
        assert self._kv is not None, "not loaded"
        transfer = TransferThread(
            order.agent,
            pool_memory(self._kv, self._group.rank, self._group.ranks),
            order.config,
            backend(order.config),
            self._word.send,
            self._failed,
        )
        try:
            transfer.start()
        except TercetError as exc:
            self._word.send(Unable(str(exc)))
            return
        self._transfer = transfer
        self._word.send(Opened(transfer.region))

    def _failed(self, exc: BaseException) -> None:
        """Without one of its threads the rank is of no use, and the others must know."""
        logger.error("rank %d has failed", self._group.rank, exc_info=exc)
        os._exit(1)


def follow(settings: Settings) -> None:
    """To the end of the process."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        FollowerProcess(settings).run()
    except BaseException:
        logger.exception("rank %d has failed", settings.rank)
        os._exit(1)  # its threads may be in foreign code, and rank 0 waits for its sums
