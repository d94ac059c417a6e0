"""Sums over processes of one host, through memory they share and a byte on a socket.

Gloo does the same over TCP and threads of its own, which takes two to three times as long for what a layer of a small model
sums in a step (`bench/tensor_parallel.py`). And here the order of a sum is that of the ranks, whatever its size, so
a row's result does not depend on the rows beside it.
"""

import mmap
import os
import socket
import struct
from collections.abc import Sequence

import numpy as np
import torch

from tercet.errors import PeerLost

SLOT_BYTES = 2**18
"""Of one rank and turn; larger tensors are summed in pieces, which then stay in a core's cache."""
WAIT_S = 120
"""For a rank that hangs; `control.step_timeout_s` is sooner. One that has died is noticed at once."""


class SharedSum:
    """One rank's side. `memory` is the same on all ranks, `peers` are the sockets to each of the others."""

    def __init__(self, rank: int, memory: mmap.mmap, peers: Sequence[socket.socket]) -> None:
        self._rank, self._peers = rank, list(peers)
        slots = torch.from_numpy(np.frombuffer(memory, dtype=np.uint8))
        self._turns = slots.view(2, len(peers) + 1, SLOT_BYTES)
        self._turn = 0
        for peer in peers:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", WAIT_S, 0))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """In place, contiguous; raises PeerLost when a rank is gone."""
        flat = x.view(-1)
        length = SLOT_BYTES // x.itemsize
        for start in range(0, flat.numel(), length):
            self._add(flat[start : start + length])
        return x

    def _add(self, part: torch.Tensor) -> None:
        # Of two turns one can be written while a slow rank still reads the other: it says that it is ready for the turn
        # after that only when it has done so.
        self._turn = 1 - self._turn
        slots = self._turns[self._turn, :, : part.nbytes].view(part.dtype)
        slots[self._rank] = part
        self._meet()
        if part.dtype == torch.float32:
            torch.add(slots[0], slots[1], out=part)
            for other in slots[2:]:
                part += other
        else:
            total = slots[0].float()
            for other in slots[1:]:
                total += other
            part.copy_(total)

    def _meet(self) -> None:
        """All ranks have written."""
        try:
            for peer in self._peers:
                peer.sendall(b"\0")
            gone = any(not peer.recv(1) for peer in self._peers)
        except OSError as exc:
            raise PeerLost(f"a rank does not answer: {exc}") from exc
        if gone:
            raise PeerLost("a rank is gone")


class Mesh:
    """What ranks need to sum: made once, for all of them; each one's sockets are closed in all processes but its own."""

    def __init__(self, ranks: int) -> None:
        self.memory = os.memfd_create("tercet-sum")
        os.ftruncate(self.memory, 2 * ranks * SLOT_BYTES)
        self.ends: list[list[socket.socket]] = [[] for _ in range(ranks)]
        for rank in range(ranks):
            for other in range(rank):
                mine, theirs = socket.socketpair()
                self.ends[rank].append(mine)
                self.ends[other].append(theirs)

    def side(self, rank: int) -> SharedSum:
        """For a rank in this process."""
        return SharedSum(rank, mmap.mmap(self.memory, 0), self.ends[rank])

    def close(self) -> None:
        """What is used already stays. Idempotent."""
        if self.memory >= 0:
            os.close(self.memory)
            self.memory = -1
        for ends in self.ends:
            for end in ends:
                end.close()
