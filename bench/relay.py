"""What it costs that front doors learn from each other: bytes and time a request, on every side.

One prompt of 4,096 tokens in blocks of 16: told at every granule, as it is done, and, to compare, as if every block were told.
*Sending* is naming an order and what its encoding takes longer; *passing on* is the same for its decoding, the worker's notes
and its word to one other front door; *learning* is what that one does. Times are of this thread, the median of many.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from tercet.blocks import HashDomain
from tercet.ids import FIRST_EPOCH, Incarnation, RequestId, WorkerId
from tercet.request import RequestSpec, Sampling
from tercet.router.hearsay import GRANULE_TOKENS, Hearsay
from tercet.router.prefix_index import Prefix
from tercet.wire import FrontDoorMessage, Learned, Submit, WorkerMessage
from tercet.workers.relay import Relay

BLOCK_TOKENS = 16
PROMPT_TOKENS = 4096
VOCABULARY = 150_000
LIFE = (WorkerId("decode-0"), Incarnation("1"))
BATCH = 20

encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(list[FrontDoorMessage]).decode
decode_word = msgspec.msgpack.Decoder(list[WorkerMessage]).decode


@dataclass(frozen=True)
class Row:
    """One way to tell of a request."""

    told_every_tokens: int
    order_bytes: int
    """Of a whole order, with its names."""
    name_bytes: int
    sending_us: float
    passing_on_us: float
    learning_us: float


def median_us(work: Callable[[], object], rounds: int) -> float:
    """Of the thread's time for one call, timed in batches."""
    times_ns: list[float] = []
    for _ in range(rounds):
        begun_ns = time.thread_time_ns()
        for _ in range(BATCH):
            work()
        times_ns.append((time.thread_time_ns() - begun_ns) / BATCH)
    return statistics.median(times_ns) / 1e3


def added_us(plain: Callable[[], object], named: Callable[[], object], rounds: int) -> float:
    """What names add, by turns, since a long prompt's own time varies by more; at least nothing."""
    pairs = [(median_us(plain, 1), median_us(named, 1)) for _ in range(rounds)]
    return max(0.0, statistics.median(full - bare for bare, full in pairs))


def measure(granule_tokens: int, rounds: int) -> Row:
    tokens = random.Random(0).choices(range(VOCABULARY), k=PROMPT_TOKENS)
    names = Prefix(tokens, BLOCK_TOKENS, HashDomain("bench")).names
    # An index that is told of every block is one whose granules are as short.
    block_tokens = BLOCK_TOKENS * GRANULE_TOKENS // granule_tokens
    hearsay, relay = Hearsay(2**20, block_tokens), Relay()
    relay.join("f")
    relay.join("g")
    bare = Submit(RequestSpec(RequestId("r" * 28), tokens, Sampling()), FIRST_EPOCH)
    named = msgspec.structs.replace(bare, names=hearsay.told(names))
    bare_frame, named_frame = encode([bare]), encode([named])
    word = encode([Learned(named.names)])

    def tell() -> None:
        msgspec.structs.replace(bare, names=hearsay.told(names))

    def pass_on() -> None:
        relay.note("f", named.names)
        encode([Learned(relay.take()["g"])])

    def learn() -> None:
        [learned] = decode_word(word)
        assert isinstance(learned, Learned)
        hearsay.learn(LIFE, learned.names)

    return Row(
        told_every_tokens=granule_tokens,
        order_bytes=len(named_frame),
        name_bytes=len(named.names),
        sending_us=median_us(tell, rounds)
        + added_us(lambda: encode([bare]), lambda: encode([named]), rounds),
        passing_on_us=median_us(pass_on, rounds)
        + added_us(lambda: decode_order(bare_frame), lambda: decode_order(named_frame), rounds),
        learning_us=median_us(learn, rounds),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    rows = [measure(granule, arguments.rounds) for granule in (GRANULE_TOKENS, BLOCK_TOKENS)]
    for row in rows:
        print(
            f"a name every {row.told_every_tokens} tokens: {row.name_bytes} of {row.order_bytes} bytes; "
            f"sending {row.sending_us:.1f}, passing on {row.passing_on_us:.1f}, learning {row.learning_us:.1f} µs"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
