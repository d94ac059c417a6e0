"""The composition root: the only place, with the command line, that knows control plane, front door and workers at once."""

from tercet.app.application import BuildArgs, application, build
from tercet.app.launch import Cluster, launch, take_down

__all__ = ["BuildArgs", "Cluster", "application", "build", "launch", "take_down"]
