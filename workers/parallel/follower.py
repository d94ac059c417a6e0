"""A follower as its worker sees it: a child process that lives no longer than the worker, and two pipes to it."""

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

import msgspec

from tercet.errors import ModelUnsupported, PeerLost, TransferFailed
from tercet.wire import KvRegion
from tercet.workers.parallel.orders import (
    Answer,
    Loaded,
    Opened,
    OpenTransfer,
    Settings,
    Stop,
    Unable,
)
from tercet.workers.parallel.pipe import Pipe
from tercet.workers.parallel.shared_sum import Mesh
from tercet.workers.runner import RunnerLost
from tercet.workers.transfer.base import TransferEvent

LOAD_WAIT_S = 600.0
"""For a follower's model once our own is here; whoever starts the worker is less patient."""
OPEN_WAIT_S = 60.0
SEND_WAIT_S = 2.0
"""A follower that takes nothing for so long hangs."""
STOP_WAIT_S = 5.0
STDERR = 2


class Follower:
    """One of them. `ended` is called on a thread of its own."""

    def __init__(
        self, name: str, settings: Settings, mesh: Mesh, ended: "Callable[[Follower], None]"
    ) -> None:
        self.name = name
        self._settings, self._mesh, self._ended = settings, mesh, ended
        work, self._their_work = _pair()
        word, self._their_word = _pair()
        self.work: Pipe[None] = Pipe(work, type(None))
        self.word: Pipe[Answer] = Pipe(word, Answer)
        self.on_transfer: Callable[[TransferEvent], None] = _unexpected
        """Called on a thread of its own with what its transfer says."""
        self._answers: SimpleQueue[Loaded | Unable | Opened | None] = SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._spawned = threading.Event()
        self._patience_s = 0.0
        # The process dies with the thread that made it, which therefore stays until the process has ended.
        self._keeper = threading.Thread(target=self._keep, name=f"keeper of {name}", daemon=True)
        self._keeper.start()

    @property
    def alive(self) -> bool:
        return self._keeper.is_alive()

    def wait_loaded(self) -> None:
        """Raises what keeps it from loading."""
        answer = self._answer(LOAD_WAIT_S)
        if isinstance(answer, Unable):
            raise ModelUnsupported(f"{self.name}: {answer.reason}")
        assert isinstance(answer, Loaded), answer
        self._patience_s = STOP_WAIT_S

    def open_transfer(self, order: OpenTransfer) -> KvRegion:
        """Raises TransferFailed with what the backend says."""
        self.word.send(order)
        answer = self._answer(OPEN_WAIT_S)
        if isinstance(answer, Unable):
            raise TransferFailed(f"{self.name}: {answer.reason}")
        assert isinstance(answer, Opened), answer
        return answer.region

    def dismiss(self) -> None:
        """It need not compute any more, and should end."""
        with suppress(PeerLost):  # it has ended already
            self.word.send(Stop())
        self.work.close()

    def end(self) -> None:
        """Waits for its end, which is violent if need be, and where it still loads."""
        self._keeper.join(self._patience_s)
        self._spawned.wait()
        if self._keeper.is_alive() and self._process is not None:
            self._process.kill()
            self._keeper.join()
        self.word.close()

    def _answer(self, wait_s: float) -> Loaded | Unable | Opened:
        try:
            answer = self._answers.get(timeout=wait_s)
        except Empty:
            raise RunnerLost(f"{self.name} says nothing after {wait_s:g} s") from None
        if answer is None:
            raise RunnerLost(f"{self.name} has ended")
        return answer

    def _keep(self) -> None:
        try:
            with self._spawn() as self._process:
                self._spawned.set()
                while (answer := self.word.receive()) is not None:
                    if isinstance(answer, Loaded | Unable | Opened):
                        self._answers.put(answer)
                    else:
                        self.on_transfer(answer)
        finally:
            self._spawned.set()  # also where it could not be made
            self._answers.put(None)
            self._ended(self)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        ends = (self._their_work, self._their_word, *self._mesh.ends[self._settings.rank])
        work, word, *peers = (end.fileno() for end in ends)
        memory = self._mesh.memory
        settings = msgspec.structs.replace(
            self._settings, work=work, word=word, memory=memory, peers=tuple(peers)
        )
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tercet.workers.parallel",
                msgspec.json.encode(settings),
                str(os.getpid()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=STDERR,  # what a library prints there may not be part of our own output
            pass_fds=(work, word, memory, *peers),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for whoever started us
        )
        for end in ends:
            end.close()
        return process


def _pair() -> tuple[socket.socket, socket.socket]:
    """Ours, which does not wait for ever to be rid of something, and the follower's."""
    ours, theirs = socket.socketpair()
    wait = struct.pack("ll", int(SEND_WAIT_S), 0)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
    return ours, theirs


def _unexpected(event: TransferEvent) -> None:
    raise AssertionError(f"{event} of a transfer that was not opened")
