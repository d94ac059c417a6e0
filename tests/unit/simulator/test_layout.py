import pytest

from tercet.errors import OptionError
from tercet.simulator import scaled


@pytest.mark.parametrize(
    ("file", "workers", "pools"),
    [
        ((1, 2), 30, (10, 20)),
        ((1, 3), 2, (1, 1)),
        ((3, 1), 2, (1, 1)),
        ((1, 1), 3, (2, 1)),
        ((0, 2), 7, (0, 7)),
        ((1, 100), 2, (1, 1)),
    ],
)
def test_pools_keep_their_proportion_and_at_least_one_worker(cluster, file, workers, pools):
    config = scaled(cluster(file[1], prefill=file[0]), workers)
    assert (config.pools.prefill.replicas, config.pools.decode.replicas) == pools


def test_fewer_workers_than_pools_are_refused(cluster):
    with pytest.raises(OptionError, match="1 workers are too few for 2 pools"):
        scaled(cluster(2, prefill=1), 1)
