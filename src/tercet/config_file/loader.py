"""From a path to a configuration: read, validate, resolve paths, look for contradictions."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from tercet.config import ClusterConfig, TlsConfig
from tercet.config_file.checks import contradictions
from tercet.config_file.document import Document, Place
from tercet.config_file.heads import indivisible
from tercet.config_file.refusal import refusal
from tercet.errors import ConfigError

Check = Callable[[ClusterConfig], object]
"""Raises ConfigError with the path of a value that only its user can judge; file and line are added here."""


def load(path: Path, *checks: Check, elsewhere: bool = False) -> ClusterConfig:
    """Reads and checks a cluster file; the result's paths are absolute and its model has a name.

    Raises ConfigError for the first thing that is wrong. The files it names must be there, unless they are `elsewhere`.
    """
    document = Document(str(path), _text(path))
    if document.value is None:
        raise ConfigError(document.file, 0, "", "the file is empty", "it needs at least model.path")
    try:
        config = msgspec.convert(document.value, ClusterConfig)
    except msgspec.ValidationError as exc:
        raise refusal(document, exc) from exc
    config = _resolve(config, document, path.absolute().parent, elsewhere)
    shapes = [] if elsewhere else indivisible(config)
    for place, reason, hint in (*contradictions(config), *shapes):
        raise document.refuse(place, reason, hint)
    for check in checks:
        try:
            check(config)
        except ConfigError as exc:
            raise document.refuse(tuple(exc.path.split(".")), exc.reason, exc.hint) from exc
    return config


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise ConfigError(str(path), line, "", "not UTF-8 text") from exc
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        raise ConfigError(str(path), 0, "", f"cannot be read: {reason}") from exc


def _resolve(
    config: ClusterConfig, document: Document, folder: Path, elsewhere: bool
) -> ClusterConfig:
    """Relative paths count from the file's folder, and what they name must be there, unless it is `elsewhere`.

    Symbolic links are left alone: a checkpoint's files may be links into a cache elsewhere.
    """

    def existing(place: Place, value: str, what: str, inside: str = "") -> str:
        found = folder / Path(value).expanduser()
        if not (elsewhere or (found / inside).is_file()):
            raise document.refuse(place, f"no {what}: {found / inside} does not exist")
        return str(found)

    model = config.model
    checkpoint = existing(("model", "path"), model.path, "checkpoint", "config.json")
    tls, policy_file = config.link.tls, config.autoscaler.policy_file
    if tls is not None:
        names = ("certificate", "key", "authority")
        tls = TlsConfig(
            **{name: existing(("link", "tls", name), getattr(tls, name), "file") for name in names}
        )
    if policy_file:
        policy_file = existing(("autoscaler", "policy_file"), policy_file, "policy file")
    replace = msgspec.structs.replace
    return replace(
        config,
        model=replace(model, path=checkpoint, name=model.name or Path(checkpoint).resolve().name),
        link=replace(config.link, tls=tls),
        autoscaler=replace(config.autoscaler, policy_file=policy_file),
    )
