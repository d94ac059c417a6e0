"""What `make demo` runs: a cluster, a few questions through both doors, and what became of them."""

from tercet.demo.run import run_demo

__all__ = ["run_demo"]
