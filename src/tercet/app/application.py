"""The Ray Serve application: from a configuration, or from a file that `serve deploy` names."""

from pathlib import Path

import msgspec
from pydantic import BaseModel
from ray import serve
from ray.serve import Application

from tercet import config_file
from tercet.app.replica import CONTROL_CALLS_MAX, DEPLOYMENT, STOP_GRACE_S, FrontDoorReplica
from tercet.config import ClusterConfig


class BuildArgs(BaseModel, extra="forbid"):
    """Arguments of `build`, as they stand under `args` in a Serve file."""

    config: str
    """Path of the cluster file, relative to the working directory of the application."""


def application(config: ClusterConfig) -> Application:
    """The front door's replicas, ready for `serve.run`."""
    door = config.front_door
    deployment = serve.deployment(
        serve.ingress()(FrontDoorReplica),
        name=DEPLOYMENT,
        num_replicas=door.replicas,
        ray_actor_options={"num_cpus": door.cpus},
        # Our own queue turns clients away with a reason; Serve must not make them wait before they get there.
        max_ongoing_requests=door.in_flight_max + door.queue_max + CONTROL_CALLS_MAX,
        max_queued_requests=CONTROL_CALLS_MAX,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=2 * STOP_GRACE_S,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
    )
    return deployment.bind(msgspec.msgpack.encode(config))


def build(args: BuildArgs) -> Application:
    """Application builder for Serve files: `import_path: tercet.app:build`. Raises ConfigError."""
    return application(config_file.load(Path(args.config)))
