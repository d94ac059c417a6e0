"""Names of policies, each with the struct of its options; the struct builds the policy."""

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Self

import msgspec
from msgspec import Meta

from tercet.config import SloConfig
from tercet.errors import ConfigError
from tercet.router.freeness import OUTPUT_TOKENS, Freeness
from tercet.router.policy import Chooser, Dice


class AbstractStruct(msgspec.StructMeta, ABCMeta):
    """Structs that may have abstract methods."""


class PolicyOptions(
    msgspec.Struct,
    metaclass=AbstractStruct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
):
    """Base of each policy's options: numbers with defaults, units in their names."""

    output_tokens: Annotated[float, Meta(gt=0)] = OUTPUT_TOKENS
    """A typical output. Who serves much longer ones, such as reasoning, has decode workers that fill more evenly by it."""

    @abstractmethod
    def build(self, dice: Dice) -> Chooser:
        """A new policy with its own memory, for a pool that computes prompts."""

    def build_decode(self, dice: Dice) -> Chooser:
        """For decode workers beside a prefill pool, which decode, and compute what is short or cached there."""
        return Freeness(dice, self.output_tokens)

    def aimed_at(self, slo: SloConfig) -> Self:
        """These options, with the cluster's promises where they leave them open."""
        return self


class Registry:
    """Looks a policy up by name and checks its options against what it knows."""

    def __init__(self, policies: Mapping[str, type[PolicyOptions]]) -> None:
        self._policies = dict(policies)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._policies)

    def add(self, name: str, kind: type[PolicyOptions]) -> None:
        """One more, for who has a policy of their own."""
        assert name not in self._policies, f"there is a policy {name!r}"
        self._policies[name] = kind

    def options(self, name: str, options: Mapping[str, float]) -> PolicyOptions:
        """The policy's options, or ConfigError naming the policies or options there are."""
        kind = self._policies.get(name)
        if kind is None:
            known = f"there are {', '.join(self.names)}"
            raise ConfigError("", 0, "router.policy", f"unknown policy {name!r}", known)
        try:
            whole = {
                key: int(value) if float(value).is_integer() else value
                for key, value in options.items()
            }
            return msgspec.convert(whole, kind)
        except msgspec.ValidationError as exc:
            fields = ", ".join(field.name for field in msgspec.structs.fields(kind)) or "none"
            hint = f"the options of {name} are: {fields}"
            raise ConfigError("", 0, "router.policy_options", str(exc), hint) from exc
