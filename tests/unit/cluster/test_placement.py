import pytest

from tercet.cluster.placement import Bundle, Node, Room, cpus_wanted, lacks, selects, shortage
from tercet.config import ClusterConfig, ModelConfig, PoolConfig, Resources

GPU_NODE = Node({"CPU": 8, "GPU": 1}, {"accelerator": "H200", "zone": "a"})


@pytest.mark.parametrize(
    ("selector", "value", "holds"),
    [
        ("H200", "H200", True),
        ("H200", "H100", False),
        ("H200", None, False),
        ("!H200", "H100", True),
        ("!H200", None, True),
        ("in(H100, H200)", "H200", True),
        ("in(H100,H200)", "A100", False),
        ("!in(H100,H200)", "A100", True),
        ("!in(H100,H200)", "H100", False),
    ],
)
def test_selectors_mean_what_they_mean_to_ray(selector, value, holds):
    assert selects(selector, value) is holds


def test_a_bundle_names_only_what_it_reserves():
    pool = PoolConfig(resources=Resources(cpus=0, gpus=0.5, custom={"fast_net": 2}))
    bundle = Bundle.of(pool)
    assert bundle.resources == {"GPU": 0.5, "fast_net": 2}
    assert bundle.custom == {"fast_net": 2}


def test_a_node_lacks_resources_and_labels():
    bundle = Bundle({"CPU": 4, "GPU": 2}, {"accelerator": "in(H100,H200)", "zone": "b"})
    assert lacks(bundle, GPU_NODE) == ["GPU 1 of 2", "label zone=b"]


def test_the_shortage_speaks_of_the_node_that_comes_nearest():
    bare = Node({"CPU": 1}, {})
    line = shortage(Bundle({"CPU": 4, "GPU": 2}, {}), Room([bare, GPU_NODE], {}))
    assert line == "no node of 2 can hold it; the nearest lacks GPU 1 of 2"


def test_a_bundle_that_would_fit_an_idle_node_waits_for_a_busy_one():
    line = shortage(Bundle({"GPU": 1}, {}), Room([GPU_NODE], {"GPU": 0.5, "CPU": 8}))
    assert line == "every node that could hold it is busy; free are GPU 0.5 of 1"


def test_nothing_is_missing_where_there_is_room():
    assert shortage(Bundle({"GPU": 1}, {}), Room([GPU_NODE], {"GPU": 1})) == ""
    assert shortage(Bundle({}, {}), Room([], {})) == "there is no living node"


def test_the_cpus_of_a_cluster_of_our_own_cover_everything_the_file_asks_for():
    config = ClusterConfig(model=ModelConfig(path="m"))
    assert cpus_wanted(config) == 1 * 1.0 + 2 * 1.0 + 0.5 + 1.0
