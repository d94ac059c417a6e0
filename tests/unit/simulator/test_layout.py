import pytest
from msgspec import structs

from tercet.config import EngineConfig
from tercet.errors import OptionError
from tercet.simulator import scaled
from tercet.simulator.layout import seats


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


def test_a_cache_whose_size_only_a_gpu_knows_is_refused(cluster):
    config = structs.replace(cluster(2), engine=EngineConfig(kv_blocks=0))
    with pytest.raises(OptionError, match="only known where the GPU is"):
        list(seats(config))
