import os
import signal

import pytest

from tercet.app import Asked, asked_to_stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_raised_once_and_does_not_disturb_the_taking_down(number):
    taken_down = []

    def serve() -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            os.kill(os.getpid(), number)
            taken_down.append(True)

    with asked_to_stop(), pytest.raises(Asked, match=number.name):
        serve()
    assert taken_down == [True]


def test_handlers_are_put_back_and_can_be_put_in_place_again():
    former = signal.getsignal(signal.SIGTERM)
    with asked_to_stop() as asked:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        asked.listen()
        assert signal.getsignal(signal.SIGTERM) not in (former, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) == former


def test_being_asked_is_not_mistaken_for_a_failure():
    assert not issubclass(Asked, Exception)
