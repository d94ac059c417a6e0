"""The front door: admission, choosing workers, one request's life, and the public HTTP and gRPC edge."""
