import inspect

import pytest

from tercet import errors
from tercet.errors import (
    ConfigError,
    InvalidRequest,
    Overloaded,
    PeerLost,
    TercetError,
    TraceError,
    TransferFailed,
    Unavailable,
    UnknownModel,
)


def test_the_tree_drawn_in_the_docstring_is_the_tree_there_is() -> None:
    drawn = [line for line in (errors.__doc__ or "").splitlines() if "──" in line]
    named = {line.split("─")[-1].split()[0] for line in drawn} | {"TercetError"}
    classes = inspect.getmembers(errors, inspect.isclass)
    assert named == {name for name, _ in classes}
    assert all(issubclass(cls, TercetError) for _, cls in classes)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("c.yaml", 7, "a.b", "bad", "try x"), "c.yaml:7: bad at a.b (try x)"),
        (ConfigError("c.yaml", 0, "", "is empty"), "c.yaml: is empty"),
        (TraceError("t.csv", 3, "Model", "is empty"), "t.csv:3: Model: is empty"),
        (TraceError("t.csv", 0, "", "holds no request"), "t.csv: holds no request"),
        (InvalidRequest("max_tokens", "must be positive"), "max_tokens: must be positive"),
        (InvalidRequest("", "not JSON"), "not JSON"),
        (UnknownModel("gpt", ["a", "b"]), "model: unknown model 'gpt'; this cluster serves a, b"),
        (Overloaded("queue full", 1.25), "queue full; retry after 1.2 s"),
    ],
)
def test_errors_read_as_sentences(error: TercetError, text: str) -> None:
    assert str(error) == text


def test_errors_carry_what_a_caller_needs_to_act() -> None:
    with pytest.raises(Unavailable) as caught:
        raise Overloaded("queue full", 3.0)
    assert caught.value.retry_after_s == 3.0
    with pytest.raises(PeerLost):
        raise TransferFailed("block 7 changed under the read")
