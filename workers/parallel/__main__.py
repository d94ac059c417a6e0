"""`python -m tercet.workers.parallel SETTINGS`: the process of a rank beyond the first, started by `follower`."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """The kernel ends this process when the thread that made it ends, even where it is stopped and reads no pipe."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the worker is dead already")


def main() -> None:
    die_with(int(sys.argv[2]))
    import msgspec  # noqa: PLC0415 -- and torch: what takes seconds comes after

    from tercet.workers.parallel.orders import Settings  # noqa: PLC0415
    from tercet.workers.parallel.process import follow  # noqa: PLC0415

    follow(msgspec.json.decode(sys.argv[1], type=Settings))


if __name__ == "__main__":
    main()
