"""How both clients reach a front door."""

import random
from dataclasses import dataclass, field

import grpc

from tercet.client.retry import Attempts, RetryPolicy
from tercet.clock import Clock, MonotonicClock

OPTIONS = (("grpc.max_receive_message_length", 64 * 2**20),)
"""A whole answer of a long generation with alternatives for each token passes grpc's 4 MiB."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the front door is and how patiently it is called."""

    target: str
    """`host:port`."""
    credentials: grpc.ChannelCredentials | None
    """For a front door behind TLS; None connects in the clear."""
    timeout_s: float | None
    """For a call and all its retries, unless the call names its own; None waits for ever."""
    retry: RetryPolicy
    clock: Clock = field(default_factory=MonotonicClock)
    rng: random.Random = field(default_factory=random.Random)

    def attempts(self, timeout_s: float | None) -> Attempts:
        """The attempts of a call that begins now."""
        wanted_s = self.timeout_s if timeout_s is None else timeout_s
        return Attempts(self.retry, wanted_s, self.clock, self.rng)

    def channel(self) -> grpc.Channel:
        if self.credentials is None:
            return grpc.insecure_channel(self.target, options=OPTIONS)
        return grpc.secure_channel(self.target, self.credentials, options=OPTIONS)

    def aio_channel(self) -> grpc.aio.Channel:
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, options=OPTIONS)
        return grpc.aio.secure_channel(self.target, self.credentials, options=OPTIONS)
