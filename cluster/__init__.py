"""The control plane: which workers should exist, which do, and the one Ray controller that makes them agree."""
