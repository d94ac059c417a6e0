"""What a worker is asked to do. A role is a runtime attribute: every worker can run every phase its weights allow."""

from enum import StrEnum


class Role(StrEnum):
    """The pool a worker belongs to; it decides what the front door sends it, never what it is able to do."""

    PREFILL = "prefill"
    DECODE = "decode"
