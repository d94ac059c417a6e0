"""Stop strings: a text ends where the first of them begins, however the tokens cut it into pieces.

Knows text only. Text that might be the beginning of a stop string is held back until that is decided.
"""

from typing import NamedTuple


class Checked(NamedTuple):
    """What may be sent, and whether the text has ended there."""

    text: str
    stopped: bool


class StopStrings:
    """Watches one text for any of `strings`. After a hit nothing more comes out."""

    def __init__(self, strings: tuple[str, ...]) -> None:
        assert all(strings), "an empty stop string would stop every text at once"
        self._strings = strings
        self._held = ""
        self._stopped = False

    def feed(self, text: str, *, armed: bool = True) -> Checked:
        """Add `text`. While not `armed` (fewer than the least tokens wanted) everything passes and nothing is looked for."""
        if self._stopped:
            return Checked("", stopped=True)
        if not self._strings or not armed:
            return Checked(text, stopped=False)
        text = self._held + text
        found = [at for string in self._strings if (at := text.find(string)) >= 0]
        if found:
            self._held, self._stopped = "", True
            return Checked(text[: min(found)], stopped=True)
        keep = max(_overlap(text, string) for string in self._strings)
        certain = len(text) - keep
        self._held = text[certain:]
        return Checked(text[:certain], stopped=False)

    def finish(self) -> str:
        """What was held back and turned out to be plain text: no more text follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, string: str) -> int:
    """Length of the longest end of `text` that is a beginning, but not the whole, of `string`."""
    for length in range(min(len(string) - 1, len(text)), 0, -1):
        if text.endswith(string[:length]):
            return length
    return 0
