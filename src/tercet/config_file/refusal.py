"""Turns a validation failure of msgspec into a refusal that a person can act on: where, what, and what was meant."""

import difflib
import re

import msgspec
from msgspec import inspect

from tercet.config import ClusterConfig
from tercet.config_file.document import Document, Place, Value
from tercet.errors import ConfigError

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "object": "a section",
    "array": "a list",
    "null": "nothing",
    "object | null": "a section",
    "float | null": "a number",
}
"""msgspec's names of types, in words."""

_EMPTY_SECTION = "leave an empty section out"
_QUOTE = "put it in quotes"


def refusal(document: Document, error: msgspec.ValidationError) -> ConfigError:
    """The `ConfigError` for what msgspec found wrong with `document.value`."""
    message, _, location = str(error).partition(" - at `$")
    place = _place(document, location.rstrip("`"), str(error))
    if key := re.fullmatch(r"Object contains unknown field `(.*)`", message):
        hint = _nearest(key[1], _fields(_type_at(place)))
        # The line is the key's own, the path that of the section it stands in.
        found = document.refuse((*place, key[1]), f"unknown key `{key[1]}`", hint)
        return ConfigError(
            found.file, found.line, document.refuse(place, "").path, found.reason, hint
        )
    if key := re.fullmatch(r"Object missing required field `(.*)`", message):
        return document.refuse(place, f"the key `{key[1]}` is missing")
    return document.refuse(place, *_wrong_value(message, _value_at(document.value, place), place))


def _wrong_value(message: str, value: Value, place: Place) -> tuple[str, str]:
    """Reason and hint for a value of the wrong type, out of range or out of a closed set."""
    if choices := _choices(_type_at(place)):
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"did you mean `{close[0]}`?" if close else ""
        return f"{value!r} is not one of {', '.join(choices)}", hint
    wanted, _, got = message.removeprefix("Expected ").partition(", got ")
    wanted = re.sub(r"`([^`]*)`", lambda name: _WORDS.get(name[1], name[1]), wanted)
    given = got.strip("`")
    if given in ("object", "array", "null"):
        hint = _EMPTY_SECTION if given == "null" and wanted == "a section" else ""
        return f"expected {wanted}, got {_WORDS[given]}", hint
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    hint = _QUOTE if wanted == "text" else ""
    return f"expected {wanted}, got {shown}", hint


def _place(document: Document, location: str, message: str) -> Place:
    """msgspec's `.pools.decode.labels[...]` as a place; the unnamed key is found by trying."""
    place: Place = ()
    for part in re.findall(r"\.[^.\[]+|\[\d+\]|\[\.\.\.\]", location):
        if part == "[...]":
            place = (*place, _failing_key(document.value, place, message))
        else:
            place = (*place, int(part[1:-1]) if part.startswith("[") else part[1:])
    return place


def _failing_key(root: Value, place: Place, message: str) -> str:
    """Which key of the mapping at `place` is at fault: the one that fails in the same way when it is alone."""
    mapping = _value_at(root, place)
    assert isinstance(mapping, dict), f"{place} is no mapping"
    for key, value in mapping.items():
        try:
            msgspec.convert(_with(root, place, {key: value}), ClusterConfig)
        except msgspec.ValidationError as exc:
            if str(exc) == message:
                return key
    raise AssertionError(f"no key of {place} fails with {message!r}")


def _with(root: Value, place: Place, replacement: Value) -> Value:
    """A copy of `root` with the value at `place` replaced."""
    if not place:
        return replacement
    assert isinstance(root, dict), f"{place} leads through {root!r}"
    key = str(place[0])
    return {**root, key: _with(root[key], place[1:], replacement)}


def _value_at(root: Value, place: Place) -> Value:
    for part in place:
        if isinstance(root, dict):
            root = root[str(part)]
        elif isinstance(root, list):
            root = root[int(part)]
    return root


def _type_at(place: Place) -> inspect.Type:
    """What the configuration wants at `place`."""
    wanted: inspect.Type = inspect.type_info(ClusterConfig)
    for part in place:
        wanted = _plain(wanted)
        if isinstance(wanted, inspect.DictType):
            wanted = wanted.value_type
        elif isinstance(wanted, inspect.VarTupleType):
            wanted = wanted.item_type
        elif isinstance(wanted, inspect.StructType):
            wanted = next(field.type for field in wanted.fields if field.encode_name == part)
    return _plain(wanted)


def _plain(wanted: inspect.Type) -> inspect.Type:
    """`X | None` and annotated X are X."""
    if isinstance(wanted, inspect.Metadata):
        return _plain(wanted.type)
    if isinstance(wanted, inspect.UnionType):
        return next(t for t in wanted.types if not isinstance(t, inspect.NoneType))
    return wanted


def _fields(wanted: inspect.Type) -> list[str]:
    return (
        [field.encode_name for field in wanted.fields]
        if isinstance(wanted, inspect.StructType)
        else []
    )


def _choices(wanted: inspect.Type) -> list[str]:
    return (
        [str(value) for value in wanted.values] if isinstance(wanted, inspect.LiteralType) else []
    )


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean `{close[0]}`?" if close else f"valid keys: {', '.join(known)}"
