"""What `tercet simulate` was asked for, made into a cluster, a trace and failures; or refused by the option that is wrong."""

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from msgspec import structs

from tercet import config_file
from tercet.cli.model_profile import model_of
from tercet.config import ClusterConfig, RouterConfig
from tercet.errors import ConfigError, OptionError
from tercet.ids import WorkerId
from tercet.role import Role
from tercet.router.policies import POLICIES
from tercet.simulator import Failure, IdealModel, MachineModel, scaled
from tercet.simulator.traces import (
    FORMATS,
    ClosedTrace,
    ReadOptions,
    Trace,
    head,
    head_sessions,
    load_trace,
    scale_rate,
    spread,
    spread_sessions,
)


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """A cluster file, and what is to be different. Its model need not be on this machine."""

    file: Path
    policy: str
    policy_options: tuple[str, ...]
    instances: int | None

    def read(self) -> ClusterConfig:
        """Raises ConfigError, OptionError."""
        config = config_file.load(self.file, elsewhere=True)
        config = structs.replace(config, router=self._router(config))
        return scaled(config, self.instances) if self.instances else config

    def _router(self, config: ClusterConfig) -> RouterConfig:
        router = config.router
        if self.policy and self.policy != router.policy:
            router = structs.replace(router, policy=self.policy, policy_options={})
        given = dict(pair_of("--policy-option", text) for text in self.policy_options)
        router = structs.replace(router, policy_options=router.policy_options | given)
        try:
            POLICIES.options(router.policy, router.policy_options)
        except ConfigError as exc:
            is_name = exc.path == "router.policy"
            option = "--policy" if is_name else "--policy-option"
            raise OptionError(option, exc.reason, exc.hint) from exc
        return router


class MachineKind(StrEnum):
    """What a worker is."""

    ENGINE = "engine"
    IDEAL = "ideal"


@dataclass(frozen=True, slots=True)
class MachineRequest:
    """Workers of a kind, and how fast they are."""

    kind: MachineKind
    profile: Path | None
    tokens_per_s: float | None

    def read(self, config: ClusterConfig) -> MachineModel:
        """Raises OptionError."""
        ideal = self.kind is MachineKind.IDEAL
        if ideal and self.profile is not None:
            raise OptionError(
                "--model-profile", "ideal machines have one speed", "use --tokens-per-s"
            )
        if not ideal and self.tokens_per_s is not None:
            hint = "add --machine ideal, or use --model-profile"
            raise OptionError("--tokens-per-s", "is the speed of ideal machines", hint)
        if not ideal:
            return model_of(self.profile, config.engine_of(Role.DECODE).block_tokens)
        return IdealModel() if self.tokens_per_s is None else IdealModel(self.tokens_per_s)


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """A trace, and what is to be done with it: its beginning is taken, then arrivals are spread, then they are hastened."""

    path: Path
    format: str
    head: int | None
    spread_s: float
    rate_scale: float
    sessions_per_s: float | None
    span_s: float
    stream: bool
    seed: int

    def read(self, config: ClusterConfig) -> Trace | ClosedTrace:
        """Raises TraceError, OptionError."""
        if self.format and self.format not in FORMATS:
            raise OptionError(
                "--format", f"unknown format {self.format!r}", f"there are {', '.join(FORMATS)}"
            )
        block_tokens = config.engine_of(Role.DECODE).block_tokens
        options = ReadOptions(block_tokens=block_tokens, seed=self.seed, span_s=self.span_s)
        trace = load_trace(self.path, self.format, options, lazy=self.stream)
        return self._open(trace) if isinstance(trace, Trace) else self._closed(trace)

    def _open(self, trace: Trace) -> Trace:
        if self.sessions_per_s is not None:
            reason = f"{trace.name} has requests that wait for nobody, and no sessions to start"
            raise OptionError("--sessions-per-s", reason, "use --rate-scale")
        if self.head is not None:
            trace = head(trace, self.head)
        if self.spread_s:
            trace = spread(trace, self.spread_s, self.seed)
        return scale_rate(trace, self.rate_scale) if self.rate_scale != 1 else trace

    def _closed(self, trace: ClosedTrace) -> ClosedTrace:
        reason = f"{trace.name} has sessions, in which requests wait for answers"
        if self.rate_scale != 1:
            raise OptionError("--rate-scale", reason, "use --sessions-per-s")
        if self.spread_s:
            raise OptionError("--spread-s", reason, "use --sessions-per-s")
        if self.head is not None:
            trace = head_sessions(trace, self.head)
        if self.sessions_per_s is not None:
            trace = spread_sessions(trace, self.sessions_per_s, self.seed)
        return trace


def pair_of(option: str, text: str) -> tuple[str, float]:
    """`name=number`."""
    name, equals, number = text.partition("=")
    if not (name and equals):
        raise OptionError(option, f"{text!r} is not NAME=NUMBER", "write, for example, x=0.5")
    return name, _number(option, text, number)


def failure_of(text: str) -> Failure:
    """`worker@s`, or `worker@s+down_s`."""
    worker, at, when = text.rpartition("@")
    at_s, plus, down_s = when.partition("+")
    if not (worker and at):
        hint = "write decode-0@60 for ever, or decode-0@60+30 for 30 s"
        raise OptionError("--fail", f"{text!r} is not WORKER@S or WORKER@S+DOWN_S", hint)
    return Failure(
        WorkerId(worker),
        _number("--fail", text, at_s),
        _number("--fail", text, down_s) if plus else math.inf,
    )


def _number(option: str, text: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError as exc:
        raise OptionError(option, f"{number!r} in {text!r} is not a number") from exc
    if not 0 <= value < math.inf:
        raise OptionError(option, f"{number} in {text!r} is negative or infinite")
    return value
