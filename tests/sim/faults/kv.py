"""A model whose next token depends on every number in the cache, and on where it lies: what is stale, torn or lost shows.

As the toy runner, without arrays: a block is a list with a number for each token.
"""

from collections.abc import Sequence

from tercet.request import TokenLogprobs

BLOCK_TOKENS = 4
VOCABULARY = 50_000
END_TOKENS = frozenset(range(1000))
"""2 % of all tokens end an answer."""
GARBAGE = -7
"""What a read that fails may have written before."""

Memory = list[list[int]]


def memory(blocks: int) -> Memory:
    return [[0] * BLOCK_TOKENS for _ in range(blocks)]


def number(position: int, token: int) -> int:
    """What the cache holds of a token."""
    return hash((position, token))


def write(memory: Memory, blocks: Sequence[int], first: int, tokens: Sequence[int]) -> None:
    for position, token in enumerate(tokens, first):
        memory[blocks[position // BLOCK_TOKENS]][position % BLOCK_TOKENS] = number(position, token)


def read(memory: Memory, blocks: Sequence[int], length: int) -> int:
    """The token after the first `length` ones."""
    numbers: list[int] = []
    for block in blocks[: -(-length // BLOCK_TOKENS)]:
        numbers += memory[block]
    return next_token(numbers[:length])


def next_token(numbers: list[int]) -> int:
    return hash(tuple(numbers)) % VOCABULARY


def logprobs(token: int) -> TokenLogprobs:
    """A number that belongs to a token and no other one."""
    return TokenLogprobs(-token / VOCABULARY)


def undisturbed(prompt: list[int], max_tokens: int, stops: Sequence[int] = ()) -> list[int]:
    """What an engine says that has nothing else to do and never moves anything."""
    tokens, numbers = list(prompt), [number(i, token) for i, token in enumerate(prompt)]
    output: list[int] = []
    while len(output) < max_tokens:
        token = next_token(numbers)
        numbers.append(number(len(tokens), token))
        tokens.append(token)
        output.append(token)
        if token in END_TOKENS or token in stops:
            break
    return output
