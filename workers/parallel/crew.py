"""The followers of a worker: child processes that live no longer than it does, and it no longer than any of them."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

import msgspec
import torch
from torch._C._distributed_c10d import TCPStore

from tercet.config import EngineConfig, ModelConfig
from tercet.errors import ModelUnsupported, PeerLost
from tercet.workers.parallel.group import Group
from tercet.workers.parallel.orders import Answer, Join, Loaded, Settings, Stop, Unable
from tercet.workers.parallel.part import load_part
from tercet.workers.parallel.pipe import Pipe
from tercet.workers.parallel.runner import ParallelRunner
from tercet.workers.runner import RunnerLost

LOAD_WAIT_S = 600.0
"""For a follower's model once our own is here; whoever starts the worker is less patient."""
STOP_WAIT_S = 5.0
STDERR = 2
HOST = "127.0.0.1"
"""Where ranks find each other: they are on one node."""

Lost = Callable[[BaseException], None]


class Crew:
    """Ranks 1 to `ranks` - 1. `lost` is called from any thread when one of them ends after `load` and before `stop`."""

    def __init__(self, ranks: int, name: str, lost: Lost) -> None:
        self._ranks, self._name, self._lost = ranks, name, lost
        self._serving = False
        self.followers: list[Follower] = []

    def load(self, model: ModelConfig, engine: EngineConfig) -> ParallelRunner:
        """Starts the followers and loads all parts; compares with the whole model's own attention.

        Blocks. Raises ModelUnsupported, or RunnerLost where a follower ends; then `stop` clears up.
        """
        for rank in range(1, self._ranks):
            name = f"{self._name}, rank {rank}"
            self.followers.append(Follower(name, self._settings(rank, model, engine), self._ended))
        group = Group(0, self._ranks)
        part = load_part(model, engine, group)
        for follower in self.followers:
            follower.wait_loaded()
        self._join(group, part.runner.kv.device)
        runner = ParallelRunner(part.runner, [follower.work for follower in self.followers])
        assert part.trial is not None, "rank 0 has one"
        part.trial.hold(runner)
        self._serving = True
        for follower in self.followers:
            if not follower.alive:
                raise RunnerLost(f"{follower.name} has ended")
        return runner

    def stop(self) -> None:
        """Ends the followers; blocks for at most `STOP_WAIT_S` each. Idempotent."""
        self._serving = False
        for follower in self.followers:
            follower.dismiss()
        for follower in self.followers:
            follower.end()

    def _join(self, group: Group, device: torch.device) -> None:
        store = TCPStore(HOST, 0, self._ranks, is_master=True, wait_for_workers=False)
        for follower in self.followers:
            follower.work.send(Join(store.port))
        group.join(store, device)

    def _ended(self, follower: "Follower") -> None:
        if self._serving:
            self._lost(RunnerLost(f"{follower.name} has ended"))

    def _settings(self, rank: int, model: ModelConfig, engine: EngineConfig) -> Settings:
        return Settings(rank, self._ranks, model, engine, os.getpid())


class Follower:
    """One of them. `ended` is called on a thread of its own."""

    def __init__(self, name: str, settings: Settings, ended: "Callable[[Follower], None]") -> None:
        self.name = name
        self._settings, self._ended = settings, ended
        work, self._their_work = socket.socketpair()
        word, self._their_word = socket.socketpair()
        self.work: Pipe[None] = Pipe(work, type(None))
        self.word: Pipe[Answer] = Pipe(word, Answer)
        self._answers: SimpleQueue[Answer | None] = SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._patience_s = 0.0
        # The process dies with the thread that made it, which therefore stays until the process has ended.
        self._keeper = threading.Thread(target=self._keep, name=f"keeper of {name}", daemon=True)
        self._keeper.start()

    @property
    def alive(self) -> bool:
        return self._keeper.is_alive()

    def wait_loaded(self) -> None:
        """Raises what keeps it from loading."""
        try:
            answer = self._answers.get(timeout=LOAD_WAIT_S)
        except Empty:
            raise RunnerLost(f"{self.name} has not loaded after {LOAD_WAIT_S:g} s") from None
        match answer:
            case Loaded():
                self._patience_s = STOP_WAIT_S
            case Unable(reason=reason):
                raise ModelUnsupported(f"{self.name}: {reason}")
            case None:
                raise RunnerLost(f"{self.name} has ended while it was loading")

    def dismiss(self) -> None:
        """It need not compute any more, and should end."""
        with suppress(PeerLost):  # it has ended already
            self.word.send(Stop())
        self.work.close()

    def end(self) -> None:
        """Waits for its end, which is violent if need be, and where it still loads."""
        self._keeper.join(self._patience_s)
        if self._keeper.is_alive() and self._process is not None:
            self._process.kill()
            self._keeper.join()
        self.word.close()

    def _keep(self) -> None:
        try:
            with self._spawn() as process:
                self._process = process
                while (answer := self.word.receive()) is not None:
                    self._answers.put(answer)
        finally:
            self._answers.put(None)
            self._ended(self)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        ends = (self._their_work, self._their_word)
        work, word = (end.fileno() for end in ends)
        settings = msgspec.structs.replace(self._settings, work=work, word=word)
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tercet.workers.parallel.follower",
                msgspec.json.encode(settings),
            ],
            stdin=subprocess.DEVNULL,
            stdout=STDERR,  # what a library prints there may not be part of our own output
            pass_fds=(work, word),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for whoever started us
        )
        for end in ends:
            end.close()
        return process
