"""Reads the cluster file: YAML in, a checked `ClusterConfig` out, or a `ConfigError` that names the line.

`load` is the only way from a file to a configuration. The part does not know what any value means to the part that uses
it, except where two values contradict each other.
"""

from tercet.config_file.loader import load
from tercet.config_file.schema import schema

__all__ = ["load", "schema"]
