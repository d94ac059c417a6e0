"""The front door: the queue, choosing workers, one request's life, and the public HTTP and gRPC edge."""
