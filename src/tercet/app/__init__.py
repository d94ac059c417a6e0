"""The composition root: the only place, with the command line, that knows control plane, front door and workers at once."""

from tercet.app.application import BuildArgs, application, build
from tercet.app.launch import Cluster, launch, outlook, take_down
from tercet.app.ports import avoid_taken_ports, check_ports, with_free_ports
from tercet.app.signals import Asked, asked_to_stop

__all__ = [
    "Asked",
    "BuildArgs",
    "Cluster",
    "application",
    "asked_to_stop",
    "avoid_taken_ports",
    "build",
    "check_ports",
    "launch",
    "outlook",
    "take_down",
    "with_free_ports",
]
