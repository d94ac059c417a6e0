"""The policies there are, by name, and how a name and its options become one."""

from tercet.router.policies.least_pending import LeastPendingOptions
from tercet.router.policies.power_of_two import PowerOfTwoOptions
from tercet.router.policies.prefix_affinity import PrefixAffinityOptions
from tercet.router.policies.random import RandomOptions
from tercet.router.policies.registry import Registry
from tercet.router.policies.round_robin import RoundRobinOptions

POLICIES = Registry(
    {
        "prefix_affinity": PrefixAffinityOptions,
        "least_pending": LeastPendingOptions,
        "power_of_two": PowerOfTwoOptions,
        "random": RandomOptions,
        "round_robin": RoundRobinOptions,
    }
)

__all__ = ["POLICIES"]
