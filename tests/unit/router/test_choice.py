from tercet.request import FinishReason, Sampling, TokenLogprobs
from tercet.router.choice import Choice, Delta
from tercet.router.fake_service import EOS, spell, toy_tokenizer
from tercet.router.fake_source import FakePiece

TOKENIZER = toy_tokenizer()


def choice(*stop: str, min_tokens: int = 0, stop_token_ids: tuple[int, ...] = ()) -> Choice:
    sampling = Sampling(min_tokens=min_tokens, stop_token_ids=stop_token_ids)
    return Choice(0, TOKENIZER, sampling, stop)


def feed(choice: Choice, text: str, finish: FinishReason | None = None) -> list[Delta]:
    """One piece a token; the deltas that came out."""
    tokens = spell(text)
    pieces = [
        FakePiece([token], finish=finish if index == len(tokens) - 1 else None)
        for index, token in enumerate(tokens)
    ]
    return [delta for piece in pieces if (delta := choice.feed(piece)) is not None]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def sent_tokens(deltas: list[Delta]) -> list[int]:
    return [token.id for delta in deltas for token in delta.tokens]


def test_every_token_goes_out_with_its_text() -> None:
    deltas = feed(choice(), "héllo" + EOS, FinishReason.STOP)
    assert text(deltas) == "héllo"
    assert sent_tokens(deltas) == spell("héllo" + EOS)
    assert [delta.finish for delta in deltas][-1] is FinishReason.STOP


def test_offsets_count_characters() -> None:
    deltas = feed(choice(), "aéb")
    assert [token.offset for delta in deltas for token in delta.tokens] == [0, 1, 1, 2]


def test_tokens_behind_a_held_back_text_wait_with_it() -> None:
    subject = choice("xyz")
    assert sent_tokens(feed(subject, "axy")) == spell("a")
    assert sent_tokens(feed(subject, "b")) == spell("xyb")


def test_a_stop_string_cuts_text_and_tokens() -> None:
    subject = choice("STOP")
    deltas = feed(subject, "go STOP and more")
    assert text(deltas) == "go "
    assert sent_tokens(deltas) == spell("go ")
    assert deltas[-1].finish is FinishReason.STOP
    assert subject.generated_tokens == len("go STOP")


def test_a_stop_string_in_the_middle_of_a_piece_ends_it_there() -> None:
    subject = choice("b")
    delta = subject.feed(FakePiece(spell("abc"), finish=FinishReason.LENGTH))
    assert delta is not None
    assert (delta.text, delta.finish) == ("a", FinishReason.STOP)
    assert subject.feed(FakePiece(spell("d"))) is None


def test_a_stop_string_does_not_count_before_min_tokens() -> None:
    subject = choice("a", min_tokens=3)
    assert text(feed(subject, "aaba")) == "aab"
    assert subject.generated_tokens == 4
    assert text(feed(choice("a", min_tokens=3), "aaaba")) == "aa"


def test_what_was_held_back_comes_with_the_end() -> None:
    deltas = feed(choice("xyz"), "axy", FinishReason.LENGTH)
    assert text(deltas) == "axy"
    assert sent_tokens(deltas) == spell("axy")
    assert deltas[-1].finish is FinishReason.LENGTH


def test_a_stop_token_is_no_text() -> None:
    [stop] = spell("!")
    deltas = feed(choice(stop_token_ids=(stop,)), "hi!", FinishReason.STOP)
    assert text(deltas) == "hi"
    assert sent_tokens(deltas) == spell("hi!")


def test_the_same_token_is_text_when_the_end_has_another_reason() -> None:
    [stop] = spell("!")
    deltas = feed(choice(stop_token_ids=(stop,)), "hi!", FinishReason.LENGTH)
    assert text(deltas) == "hi!"


def test_a_last_piece_without_tokens_still_ends_the_choice() -> None:
    subject = choice()
    delta = subject.feed(FakePiece([], finish=FinishReason.LENGTH))
    assert delta == Delta(0, finish=FinishReason.LENGTH)


def test_logprobs_stay_with_their_tokens() -> None:
    tokens = spell("ab")
    logprobs = [TokenLogprobs(-0.1), TokenLogprobs(-0.2)]
    delta = choice().feed(FakePiece(tokens, logprobs))
    assert delta is not None
    assert [(token.id, token.logprobs) for token in delta.tokens] == list(
        zip(tokens, logprobs, strict=True)
    )
