"""Lines of trace files: opened, decoded and, where they are wrong, refused with their number and the field."""

import csv
import lzma
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, TypeVar, cast

import msgspec

from tercet.errors import TraceError

T = TypeVar("T")

PromptTokens = Annotated[int, msgspec.Meta(ge=1, le=1 << 26)]
Tokens = Annotated[int, msgspec.Meta(ge=0, le=1 << 26)]
"""Bounded, because a name is made for each block."""

LINE_BYTES_MAX = 64 << 20
"""The longest line of the public traces, one agent's whole session, has about 4 MB."""

_FIELD = re.compile(r" - at `\$\.?(.*)`$")


def refused(path: Path, line: int, error: msgspec.MsgspecError) -> TraceError:
    """What msgspec found wrong, in our words."""
    text = str(error)
    found = _FIELD.search(text)
    return TraceError(str(path), line, found[1] if found else "", _FIELD.sub("", text))


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked if its name ends in .xz; unreadable ones are a TraceError."""
    try:
        with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
            yield cast(IO[bytes], file)
    except (OSError, EOFError, lzma.LZMAError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise TraceError(str(path), 0, "", f"cannot be read: {reason}") from exc


def json_lines(path: Path, kind: type[T], *, strict: bool = True) -> Iterator[tuple[int, T]]:
    """Each line's number and what it holds; empty lines are passed over. Not strict: "82" may stand for 82."""
    decoder = msgspec.json.Decoder(kind, strict=strict)
    number = 0
    with opened(path) as file:
        while line := file.readline(LINE_BYTES_MAX + 1):
            number += 1
            if len(line) > LINE_BYTES_MAX:
                raise TraceError(str(path), number, "", f"longer than {LINE_BYTES_MAX:,} bytes")
            if line.isspace():
                continue
            try:
                row = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                raise _undecodable(path, number, exc) from exc
            yield number, row


def _undecodable(path: Path, number: int, error: Exception) -> TraceError:
    if isinstance(error, msgspec.MsgspecError):
        return refused(path, number, error)
    return TraceError(str(path), number, "", f"not UTF-8: {error}")


def csv_rows(
    path: Path, kind: type[T], columns: list[str] | None = None
) -> Iterator[tuple[int, T]]:
    """Each row's line and what it holds. `columns` are the names where the file has no header."""
    with opened(path) as file:
        text = (_text(path, number, line) for number, line in enumerate(file, 1))
        rows = csv.DictReader(text, fieldnames=columns)
        try:
            for row in rows:
                yield rows.line_num, msgspec.convert(row, kind, strict=False)
        except msgspec.ValidationError as exc:
            raise refused(path, rows.line_num, exc) from exc
        except csv.Error as exc:
            raise TraceError(str(path), rows.line_num, "", str(exc)) from exc


def _text(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as exc:
        raise _undecodable(path, number, exc) from exc


def finite(path: Path, line: int, field: str, value: float) -> float:
    """The value, or a TraceError: CSV knows nan and inf."""
    if not math.isfinite(value):
        raise TraceError(str(path), line, field, f"{value} is not a number")
    return value
