"""Runs a cluster as a Ray job, for as long as the job runs:

    ray job submit --working-dir . -- python deploy/job.py -f deploy/cluster.yaml [--seconds N]

`ray job stop` ends it in good order; nothing of it is left on the Ray cluster then.
"""

import argparse
import time
from pathlib import Path

from tercet import config_file
from tercet.app import Asked, asked_to_stop, launch

POLL_S = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-f", "--file", type=Path, required=True, help="the cluster file")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="serve so long; for ever without it"
    )
    arguments = parser.parse_args()
    config = config_file.load(arguments.file)
    with asked_to_stop() as asked:
        try:
            with launch(config, address="auto", report=tell) as cluster:
                asked.listen()  # Ray has put its own handlers in place
                status = cluster.wait_ready(tell)
                tell(f"ready: http://{cluster.http}/v1, gRPC {status.front_doors[0].grpc}")
                end_s = time.monotonic() + arguments.seconds
                while time.monotonic() < end_s:
                    time.sleep(POLL_S)
        except Asked as signal:
            tell(f"asked to stop ({signal})")
    tell("ended")


def tell(text: str) -> None:
    """One line in the job's log."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
