"""A YAML text as plain values, and the line on which each of them stands. Knows nothing of configurations.

Scalars follow the YAML 1.2 core schema: `no`, `on` and `yes` are text, `200e6` is a number, `012` is twelve.
Keys are always text. What could surprise is refused: two equal keys, tags, values that contain themselves.
"""

import math
import re

import yaml

from tercet.errors import ConfigError

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

Place = tuple[str | int, ...]
"""Keys and indexes that lead from the top of the document to a value."""

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

_DEFAULT_TAGS = (
    yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG,
    yaml.resolver.BaseResolver.DEFAULT_SEQUENCE_TAG,
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG,
)


def show(place: Place) -> str:
    """`("pools", "decode", 0)` as people write it: `pools.decode[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


class Document:
    """A parsed file. `value` is None when it holds nothing."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.value: Value = None
        self._lines: dict[Place, int] = {}
        self._open: set[int] = set()  # nodes being read, to notice one inside itself
        root = self._compose(text)
        if root is not None:
            self.value = self._read(root, ())

    def line_of(self, place: Place) -> int:
        """The 1-based line of a value, or of the nearest one around it; 0 when nothing around it has a line."""
        for length in range(len(place), -1, -1):
            if place[:length] in self._lines:
                return self._lines[place[:length]]
        return 0

    def refuse(
        self, place: Place, reason: str, hint: str = "", *, line: int | None = None
    ) -> ConfigError:
        """The error to raise about the value at `place`; `line` when it stands elsewhere than its value."""
        line = self.line_of(place) if line is None else line
        return ConfigError(self.file, line, show(place), reason, hint)

    def _compose(self, text: str) -> yaml.Node | None:
        try:
            # The base loader resolves nothing, so that quoted and plain scalars can be told apart below.
            return yaml.compose(text, Loader=yaml.BaseLoader)
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            reason = f"not valid YAML: {exc.problem or exc.context}"
            raise ConfigError(self.file, mark.line + 1 if mark else 0, "", reason) from exc
        except yaml.reader.ReaderError as exc:
            line = text.count("\n", 0, exc.position) + 1
            raise ConfigError(self.file, line, "", f"not valid YAML: {exc.reason}") from exc

    def _read(self, node: yaml.Node, place: Place) -> Value:
        self._lines.setdefault(place, node.start_mark.line + 1)
        if node.tag not in _DEFAULT_TAGS:
            raise self.refuse(place, f"the tag {node.tag!r} has no meaning here")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if id(node) in self._open:
            raise self.refuse(place, "this alias contains itself")
        self._open.add(id(node))
        value = (
            self._mapping(node, place)
            if isinstance(node, yaml.MappingNode)
            else [self._read(item, (*place, i)) for i, item in enumerate(node.value)]
        )
        self._open.remove(id(node))
        return value

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.refuse(place, "a key must be text", line=line)
            key = key_node.value
            inner = (*place, key)
            if key in values:
                hint = f"first on line {self._lines[inner]}"
                raise self.refuse(place, f"duplicate key `{key}`", hint, line=line)
            self._lines[inner] = line
            values[key] = self._read(value_node, inner)
        return values

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Value:
        text: str = node.value
        if node.style is not None:  # quoted or block text
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text.lower() == "true"
        if _INT.fullmatch(text):
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if _FLOAT.fullmatch(text):
            number = float(text)
            if not math.isfinite(number):
                raise self.refuse(place, f"{text} is too large a number")
            return number
        return text
