"""Generated protobuf and gRPC stubs; `make proto` writes everything else in this folder."""
