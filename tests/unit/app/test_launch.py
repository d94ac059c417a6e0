"""Taking a cluster down, as far as that needs no Ray."""

import pytest

from tercet.app.launch import take_down
from tercet.cluster.ray_control import ControllerHandle


def test_a_cluster_that_somebody_else_has_ended_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ControllerHandle, "find", classmethod(lambda cls, cluster: None))
    said: list[str] = []
    take_down(ControllerHandle("lab", object()), report=said.append)
    assert said == ["the cluster was ended already"]
