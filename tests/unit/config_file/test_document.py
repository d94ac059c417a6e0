import pytest

from tercet.config_file.document import Document, Value, show
from tercet.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("No", "No"),
        ("12", 12),
        ("-3", -3),
        ("012", 12),
        ("0o17", 15),
        ("0xff", 255),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("200e6", 200e6),
        ("1.", 1.0),
        ("1.5.0", "1.5.0"),
        ("12:30:45", "12:30:45"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: Value) -> None:
    found = Document("f", f"key: {text}").value
    assert found == {"key": value}
    assert isinstance(found, dict)
    assert type(found["key"]) is type(value)


def test_lines_are_those_of_keys_and_items() -> None:
    document = Document("f", "# head\na:\n  b:\n  - 1\n  - c: 2\n")
    assert document.line_of(()) == 2
    assert document.line_of(("a", "b")) == 3
    assert document.line_of(("a", "b", 1)) == 5
    assert document.line_of(("a", "b", 1, "c", "not there")) == 5


def test_places_are_shown_as_people_write_them() -> None:
    assert show(("pools", "decode", 0, "x")) == "pools.decode[0].x"
    assert show(()) == ""


def test_a_document_without_content_is_none() -> None:
    assert Document("f", "").value is None
    assert Document("f", "---\n...\n").value is None


def test_a_refusal_carries_its_parts() -> None:
    with pytest.raises(ConfigError) as caught:
        Document("cluster.yaml", "a: 1\nb: {c: 1, c: 2}\n")
    error = caught.value
    assert (error.file, error.line, error.path) == ("cluster.yaml", 2, "b")
    assert error.reason == "duplicate key `c`"
