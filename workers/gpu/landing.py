"""Tokens on their way from the device to the host."""

import torch


class Landing:
    """See `Draws`. Begins to copy at once, behind what is enqueued on the current stream."""

    def __init__(self, token_R: torch.Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if token_R.device.type == "cpu":
            self._host_R = token_R.clone()
            return
        self._host_R = torch.empty(token_R.shape, dtype=token_R.dtype, pin_memory=True)
        self._host_R.copy_(token_R, non_blocking=True)
        self._event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._event.record()

    def wait(self) -> list[int | None]:
        if self._event is not None:
            self._event.synchronize()
        return [token if token >= 0 else None for token in self._host_R.tolist()]
