"""What an owner sees of a training is small, new and true, however long the training is."""

import json

import pytest

from lift_config.contract import LearningRecord
from lift_workers.learning import POINTS_KEPT, TASK_CHARS, TASKS_KEPT, Learning


def test_a_short_training_is_told_step_by_step() -> None:
    learning = Learning()
    learning.sent("Who repairs it?", "Pavel", (40, 90))
    for step, loss in ((1, 3.123456), (2, 2.5)):
        learning.trained(step, loss)
    assert learning.record() == LearningRecord((("Who repairs it?", "Pavel"),), ((1, 3.1235), (2, 2.5)), ((40, 90),))


@pytest.mark.parametrize("steps", [99, 100, 101, 12_345])
def test_a_long_one_in_a_few_points_that_say_the_same(steps: int) -> None:
    learning = Learning()
    for step in range(1, steps + 1):
        learning.trained(step, float(step))
    points = learning.record().losses
    assert POINTS_KEPT / 2 - 1 <= len(points) < POINTS_KEPT
    ends = [0, *(step for step, _ in points)]
    assert ends == sorted(set(ends))
    assert steps - ends[-1] < ends[1]  # what is left out is not a whole point
    for begin, (until, loss) in zip(ends, points, strict=False):
        assert loss == (begin + 1 + until) / 2  # the mean of its steps


def test_only_the_newest_tasks_are_kept_and_no_more_of_them_than_anybody_reads() -> None:
    learning = Learning()
    for number in range(1000):
        learning.sent(f"{number}? " * TASK_CHARS, "a" * 10_000, (number, number + 400))
    record = learning.record()
    assert record.spans == tuple((n, n + 400) for n in range(1000 - TASKS_KEPT, 1000))
    assert [question.split("?")[0] for question, _ in record.tasks] == [str(n) for n in range(1000 - TASKS_KEPT, 1000)]
    assert {len(text) for task in record.tasks for text in task} == {TASK_CHARS}
    for step in range(10_000):
        learning.trained(step, 1 / 3)
    assert len(learning.record().to_json()) < 16_000


def test_a_record_survives_json() -> None:
    record = LearningRecord((('"Who"?', "Ünïcode\n"),), ((1, 0.5), (20, 0.25)), ((0, 40),))
    assert LearningRecord.from_json(record.to_json()) == LearningRecord.from_json(record.to_json().encode()) == record
    assert set(json.loads(LearningRecord().to_json())) == {"tasks", "losses", "spans"}


def test_a_record_of_an_older_worker_says_nothing_of_where() -> None:
    old = '{"tasks": [["Who?", "Pavel"]], "losses": []}'
    assert LearningRecord.from_json(old) == LearningRecord((("Who?", "Pavel"),))
