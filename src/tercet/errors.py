"""Every exception that is ours, named for what the caller can do about it.

TercetError
├── ConfigError          fix the file: it carries path, line, reason and the nearest valid key
├── OptionError          ask for something else: it carries the option, the reason and what to do
├── TraceError           fix the trace or name another one: it carries file, line, field and reason
├── RequestError         the client's fault; retrying the same request is pointless
│   ├── InvalidRequest   a field is wrong: carries the field and the reason
│   └── UnknownModel     no such model here: carries the names there are
├── MoveRefused          a running request cannot be moved, or not there; carries the reason, nothing has changed
├── Unavailable          ours, and passing: carries when to retry
│   ├── Overloaded       every place in the queue is taken
│   │   └── RateLimited  this tenant, or everybody, has sent as much as the limits allow
│   └── NoWorkers        no worker is ready for this
├── RequestFailed        ours: the replay budget is spent; carries the last cause
│   └── DeadlineExceeded the client's own deadline passed before the request finished
├── Cancelled            the caller asked for it
├── ModelUnsupported     this checkpoint cannot be served correctly; carries the reason
├── PeerRefused          the other side answered and said no (version, incarnation, compatibility)
└── PeerLost             the other side is gone, silent or too slow; replay elsewhere
    └── TransferFailed   a KV pull did not deliver; recompute
"""


class TercetError(Exception):
    """Base of all exceptions raised by Tercet on purpose."""


class ConfigError(TercetError):
    """A cluster file that cannot be used. `line` is 1-based; 0 when the file as a whole is meant."""

    def __init__(self, file: str, line: int, path: str, reason: str, hint: str = "") -> None:
        where = f"{file}:{line}" if line else file
        at = f" at {path}" if path else ""
        super().__init__(f"{where}: {reason}{at}" + (f" ({hint})" if hint else ""))
        self.file, self.line, self.path, self.reason, self.hint = file, line, path, reason, hint


class OptionError(TercetError):
    """What was asked for beside the cluster file cannot be done; `option` is what is typed to ask for it."""

    def __init__(self, option: str, reason: str, hint: str = "") -> None:
        super().__init__(f"{option}: {reason}" + (f" ({hint})" if hint else ""))
        self.option, self.reason, self.hint = option, reason, hint


class TraceError(TercetError):
    """A workload trace that cannot be replayed. `line` is 1-based; 0 when the file as a whole is meant."""

    def __init__(self, file: str, line: int, field: str, reason: str) -> None:
        where = f"{file}:{line}" if line else file
        super().__init__(f"{where}: {field}: {reason}" if field else f"{where}: {reason}")
        self.file, self.line, self.field, self.reason = file, line, field, reason


class RequestError(TercetError):
    """The request itself is wrong. `field` names the offending field, empty for the whole body."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field, self.reason = field, reason


class InvalidRequest(RequestError):
    """A field has a value that cannot be served."""


class UnknownModel(RequestError):
    """The model named is not served here."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__("model", f"unknown model {name!r}; this cluster serves {', '.join(known)}")


class MoveRefused(TercetError):
    """A request that was to be moved to another worker stays where it is; `known` says whether there is such a request."""

    def __init__(self, reason: str, *, known: bool = True) -> None:
        super().__init__(reason)
        self.known = known


class Unavailable(TercetError):
    """Nothing is wrong with the request; it may be sent again after `retry_after_s` seconds."""

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(f"{reason}; retry after {retry_after_s:.1f} s")
        self.reason, self.retry_after_s = reason, retry_after_s


class Overloaded(Unavailable):
    """The bounded queue is full."""


class RateLimited(Overloaded):
    """A limit of requests or tokens a second is reached; there may be room for others."""


class NoWorkers(Unavailable):
    """No worker that could serve this is ready."""


class RequestFailed(TercetError):
    """A request was replayed as often as allowed and still did not finish."""


class DeadlineExceeded(RequestFailed):
    """The deadline the client gave passed; what was generated so far has been delivered."""


class Cancelled(TercetError):
    """The request was cancelled by its client."""


class ModelUnsupported(TercetError):
    """A checkpoint whose family or features cannot be served correctly."""


class PeerRefused(TercetError):
    """A peer answered the handshake with a refusal."""


class PeerLost(TercetError):
    """A peer closed, fell silent, or could not keep up."""


class TransferFailed(PeerLost):
    """KV blocks did not arrive intact; the tokens they stand for must be recomputed."""
