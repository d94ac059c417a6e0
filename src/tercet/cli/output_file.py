"""A file that a long run will write: whether it can be written is found out before, not after."""

from pathlib import Path

from tercet.errors import OptionError


class OutputFile:
    """Nothing is written without a path. Raises OptionError, at once or when it is written."""

    def __init__(self, option: str, path: Path | None) -> None:
        self._option, self._path = option, path
        if path is not None and path.is_dir():
            raise OptionError(option, f"{path} is a folder", "name a file")
        if path is not None and not path.parent.is_dir():
            raise OptionError(option, f"there is no folder {path.parent}", "make it first")

    def write(self, content: bytes) -> None:
        if self._path is None:
            return
        try:
            self._path.write_bytes(content)
        except OSError as exc:
            reason = f"{self._path} cannot be written: {(exc.strerror or str(exc)).lower()}"
            raise OptionError(self._option, reason, "name another file") from exc
