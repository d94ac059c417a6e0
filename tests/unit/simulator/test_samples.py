from itertools import pairwise

import pytest

from tercet.simulator.samples import SAMPLES_MAX, Samples
from tercet.simulator.timeline import Timeline


@pytest.mark.parametrize("duration_s", [0.0, 1.0, 3600.0, 1e6])
def test_samples_are_few_even_and_reach_from_start_to_end(duration_s):
    timeline = Timeline()
    samples = Samples(timeline, lambda: (timeline.now_s(),))
    samples.start()
    timeline.call_at(duration_s, lambda: None)
    timeline.run(lambda: timeline.now_s() < duration_s)
    samples.stop()
    times_s = list(samples.times_s)
    assert len(times_s) <= SAMPLES_MAX
    assert (times_s[0], times_s[-1]) == (0.0, duration_s)
    assert samples.column(0) == times_s, "a row belongs to its time"
    steps = {after - before for before, after in pairwise(times_s[:-1])}
    assert len(steps) <= 1
