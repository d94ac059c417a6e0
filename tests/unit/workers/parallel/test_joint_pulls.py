"""What ranks say in whatever order becomes one answer, and blocks are given back only when no rank's read can write there."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.ids import Epoch, RequestId
from tercet.workers.parallel.joint_pulls import JointPulls
from tercet.workers.transfer.base import JobId, Pulled, PullFailed, Settled, TransferEvent

JOB = JobId(RequestId("r"), Epoch(1), 1)
ENDINGS: list[list[TransferEvent]] = [
    [Pulled(JOB, 100, 0.5)],
    [PullFailed(JOB, "broken", in_flight=False)],
    [PullFailed(JOB, "late", in_flight=True), Settled(JOB)],
]


def test_the_whole_is_here_when_every_part_is():
    pulls = JointPulls(2)
    pulls.begin(JOB)
    assert pulls.hear(1, Pulled(JOB, 100, 0.5)) is None
    assert pulls.hear(0, Pulled(JOB, 60, 0.7)) == Pulled(JOB, 160, 0.7)
    assert len(pulls) == 0


def test_one_part_that_fails_fails_the_whole_at_once_and_the_others_keep_it_in_flight():
    pulls = JointPulls(3)
    pulls.begin(JOB)
    assert pulls.hear(2, Pulled(JOB, 100, 0.5)) is None
    failure = pulls.hear(0, PullFailed(JOB, "stale", in_flight=False))
    assert failure == PullFailed(JOB, "stale", in_flight=True)
    assert pulls.hear(1, Pulled(JOB, 100, 0.5)) == Settled(JOB)
    assert len(pulls) == 0


@settings(deadline=None)
@given(st.lists(st.sampled_from(ENDINGS), min_size=1, max_size=4), st.data())
def test_there_is_one_answer_and_it_is_settled_when_the_last_rank_is(endings, data):
    pulls = JointPulls(len(endings))
    pulls.begin(JOB)
    left = {rank: list(ending) for rank, ending in enumerate(endings)}
    said: list[TransferEvent] = []
    while left:
        rank = data.draw(st.sampled_from(sorted(left)))
        event = left[rank].pop(0)
        if not left[rank]:
            del left[rank]
        answer = pulls.hear(rank, event)
        if answer is not None:
            said.append(answer)
        free = [each for each in said if not (isinstance(each, PullFailed) and each.in_flight)]
        assert not (free and left), "blocks were given back while a rank could write there"
    if all(isinstance(ending[0], Pulled) for ending in endings):
        assert said == [Pulled(JOB, 100 * len(endings), 0.5)]
    else:
        first, *rest = said
        assert isinstance(first, PullFailed)
        assert rest == ([Settled(JOB)] if first.in_flight else [])
    assert len(pulls) == 0
