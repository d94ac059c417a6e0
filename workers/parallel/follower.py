"""The process of a rank beyond the first: `python -m tercet.workers.parallel.follower SETTINGS`, started by `crew`.

Computes what it is told, in lockstep with the others, and ends when the worker does, however that ends.
"""

import ctypes
import logging
import os
import signal
import socket
import sys
import threading

import msgspec
from torch._C._distributed_c10d import TCPStore

from tercet.errors import TercetError
from tercet.workers.model_runner import ModelRunner
from tercet.workers.parallel.crew import HOST
from tercet.workers.parallel.group import Group
from tercet.workers.parallel.orders import (
    Compute,
    Join,
    Loaded,
    Settings,
    Stop,
    Unable,
    WordOrder,
    WorkOrder,
)
from tercet.workers.parallel.part import load_part
from tercet.workers.parallel.pipe import Pipe
from tercet.workers.runner import Slice

PR_SET_PDEATHSIG = 1

logger = logging.getLogger(__name__)


class FollowerProcess:
    """The main thread computes, another one hears words."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._group = Group(settings.rank, settings.ranks)
        self._work: Pipe[WorkOrder] = Pipe(socket.socket(fileno=settings.work), WorkOrder)
        self._word: Pipe[WordOrder] = Pipe(socket.socket(fileno=settings.word), WordOrder)
        self._listener = threading.Thread(target=self._listen, name="words", daemon=True)

    def run(self) -> None:
        """Until the worker has no more work; raises what cannot be computed."""
        self._listener.start()
        try:
            runner = load_part(self._settings.model, self._settings.engine, self._group).runner
        except TercetError as exc:
            self._word.send(Unable(str(exc)))
            return
        self._word.send(Loaded())
        while (order := self._work.receive()) is not None:
            self._obey(runner, order)
        self._listener.join()

    def _obey(self, runner: ModelRunner, order: WorkOrder) -> None:
        match order:
            case Join(port=port):
                store = TCPStore(HOST, port, self._group.ranks, is_master=False)
                self._group.join(store, runner.kv.device)
            case Compute(shares=shares):
                runner.forward([Slice(s.tokens, s.start, s.blocks, sample=False) for s in shares])

    def _listen(self) -> None:
        while (order := self._word.receive()) is not None:
            match order:
                case Stop():
                    return
        os._exit(1)  # the worker is dead, and the main thread may be deep in a step


def die_with(parent: int) -> None:
    """The kernel ends this process when the thread that made it ends, even where it is stopped and reads no pipe."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the worker is dead already")


def main() -> None:
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    die_with(settings.parent)
    try:
        FollowerProcess(settings).run()
    except BaseException:
        logger.exception("rank %d has failed", settings.rank)
        os._exit(1)  # its threads may be in foreign code, and rank 0 waits for its sums


if __name__ == "__main__":
    main()
