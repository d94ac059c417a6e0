"""What only the tokens of a prompt can show to be wrong is refused before anything is sent."""

import pytest

from tercet.errors import InvalidRequest
from tercet.ids import RequestId
from tercet.request import Sampling
from tercet.router.call import Call, TokenPrompt
from tercet.router.fake_service import toy_tokenizer
from tercet.router.preparation import ModelCard, Preparation


def prepare(vocabulary_size: int) -> Preparation:
    return Preparation(ModelCard("toy", 0, 64, vocabulary_size), toy_tokenizer(), None)


def call(*tokens: int) -> Call:
    return Call(RequestId("r"), "toy", (TokenPrompt(tokens),), Sampling(max_tokens=1))


async def test_tokens_of_the_vocabulary_are_taken_as_they_are() -> None:
    [part] = await prepare(200).parts(call(0, 199, 7))
    assert part.spec.prompt == [0, 199, 7]


@pytest.mark.parametrize("tokens", [(200,), (0, 2**32), (2**64,), (7, -1)])
async def test_a_token_id_outside_of_the_vocabulary_is_refused(tokens: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="a token id outside 0 to 199"):
        await prepare(200).parts(call(*tokens))


async def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="has no tokens"):
        await prepare(200).parts(call())
