"""The policies there are, by name, and how a name and its options become one."""

from tercet.router.policies.bounded_hash import BoundedHashOptions
from tercet.router.policies.cache_aware import CacheAwareOptions
from tercet.router.policies.dualmap import DualMapOptions
from tercet.router.policies.kv_cost import KvCostOptions
from tercet.router.policies.least_pending import LeastPendingOptions
from tercet.router.policies.min_ttft import MinTtftOptions
from tercet.router.policies.power_of_two import PowerOfTwoOptions
from tercet.router.policies.prefix_affinity import PrefixAffinityOptions
from tercet.router.policies.random import RandomOptions
from tercet.router.policies.registry import Registry
from tercet.router.policies.round_robin import RoundRobinOptions

POLICIES = Registry(
    {
        "prefix_affinity": PrefixAffinityOptions,
        "dualmap": DualMapOptions,
        "least_pending": LeastPendingOptions,
        "min_ttft": MinTtftOptions,
        "kv_cost": KvCostOptions,
        "cache_aware": CacheAwareOptions,
        "bounded_hash": BoundedHashOptions,
        "power_of_two": PowerOfTwoOptions,
        "random": RandomOptions,
        "round_robin": RoundRobinOptions,
    }
)

__all__ = ["POLICIES"]
