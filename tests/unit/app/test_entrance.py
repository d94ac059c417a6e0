import pytest

from tercet.app.entrance import RunningServe, choose_entrance
from tercet.config import FrontDoorConfig
from tercet.errors import TercetError

PROXY = RunningServe("10.0.0.1", 8123, has_proxy=True)
NO_PROXY = RunningServe("127.0.0.1", 8000, has_proxy=False)


@pytest.mark.parametrize(
    ("owned", "asked", "chosen"),
    [(True, None, False), (True, True, True), (False, None, None), (False, False, False)],
)
def test_serves_proxy_is_left_out_on_a_ray_of_our_own_or_where_that_is_asked(owned, asked, chosen):
    door = FrontDoorConfig(serve_proxy=asked)
    assert choose_entrance(door, None, owned=owned).serve_proxy is chosen


@pytest.mark.parametrize("port", [0, 8123])
def test_a_serve_that_runs_has_chosen_the_address(port):
    door = choose_entrance(FrontDoorConfig(http_port=port), PROXY, owned=False)
    assert (door.host, door.http_port, door.serve_proxy) == ("10.0.0.1", 8123, None)


def test_another_port_than_that_of_a_running_serve_is_refused():
    with pytest.raises(TercetError, match="to 8123, or to 0"):
        choose_entrance(FrontDoorConfig(http_port=8000), PROXY, owned=False)


def test_beside_a_running_serve_a_server_of_our_own_needs_another_port():
    own = FrontDoorConfig(http_port=8123, serve_proxy=False)
    with pytest.raises(TercetError, match="Serve's proxy has port 8123"):
        choose_entrance(own, PROXY, owned=False)
    door = choose_entrance(FrontDoorConfig(http_port=8200, serve_proxy=False), PROXY, owned=False)
    assert (door.host, door.http_port) == ("127.0.0.1", 8200)


def test_a_serve_without_a_proxy_is_no_way_in_but_leaves_every_port_free():
    with pytest.raises(TercetError, match="without an HTTP proxy"):
        choose_entrance(FrontDoorConfig(), NO_PROXY, owned=False)
    own = FrontDoorConfig(http_port=8000, serve_proxy=False)
    assert choose_entrance(own, NO_PROXY, owned=False) == own
