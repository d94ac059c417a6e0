"""Which decode workers should give requests away while they run, and to whom: Llumnix's rebalancing (Sun et al., OSDI '24).

Each worker has a freeness, the decode steps until its KV is full. Those with little give to those with much; whoever counts
as fuller than it is, because a long prompt finds no room there or somebody important runs there, gives sooner.
"""

from tercet.cluster.migration.planner import Planner, Relieve
from tercet.cluster.migration.standing import Standing

__all__ = ["Planner", "Relieve", "Standing"]
