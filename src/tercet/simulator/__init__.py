"""Replays workloads against the real policies on a manual clock, with a latency model in place of the GPUs."""
