"""The data plane: engines that compute, and the hand-off that moves KV between them. No Ray but in `actor`."""
