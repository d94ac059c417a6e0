"""The places of workers: one Ray placement group a worker, named like its actor, with one bundle.

Groups are detached, as workers are: they outlive the controller, and nothing but `give_up` ends one.
"""

import logging
from collections.abc import Mapping

import ray
from ray.exceptions import RayError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from tercet.cluster.placement import Bundle

NOTHING: Mapping[str, float] = {"memory": 1}
"""A byte in place of nothing: Ray takes no empty bundle, and a worker may reserve nothing."""

logger = logging.getLogger(__name__)


def reserve(name: str, bundle: Bundle) -> PlacementGroup:
    """Ask for a place; returns at once, and whoever is put there waits until there is one."""
    return placement_group(
        [dict(bundle.resources or NOTHING)],
        strategy="STRICT_PACK",
        name=name,
        lifetime="detached",
        bundle_label_selector=[dict(bundle.labels)],
    )


def reserved(prefix: str) -> dict[str, PlacementGroup]:
    """Every place, taken or waited for, whose name begins so."""
    # Not by `get_placement_group`: that looks in the namespace of whoever started the controller, which may be Serve's.
    return {
        entry["name"]: PlacementGroup(ray.PlacementGroupID.from_hex(group))
        for group, entry in placement_group_table().items()
        if entry["state"] != "REMOVED" and entry["name"].startswith(prefix)
    }


def give_up(place: PlacementGroup) -> None:
    """Free a place, and end whoever still sits there. Never fails: what Ray does not hear now is found by `reserved`."""
    try:
        remove_placement_group(place)
    except RayError as exc:
        logger.warning("a placement group was not removed: %s", exc)
