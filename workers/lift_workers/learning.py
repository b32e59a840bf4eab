"""What a document's owner may see of its training while it goes on: the newest tasks, and the loss in a few points.

In: each task as it is sent to the child, each step's loss. Out: a LearningRecord, small however long the training is.
"""

from __future__ import annotations

from collections import deque

from lift_config.contract import LearningRecord
from lift_config.segment import Span

TASKS_KEPT = 12
TASK_CHARS = 500  # of a question, and of an answer; segments have 400, a generator may say more
POINTS_KEPT = 100


class Learning:
    """Of one course."""

    def __init__(self) -> None:
        self._tasks: deque[tuple[str, str]] = deque(maxlen=TASKS_KEPT)
        self._spans: deque[Span] = deque(maxlen=TASKS_KEPT)
        self._points: list[tuple[int, float]] = []
        self._steps_a_point = 1
        self._since: list[float] = []  # the last point

    def sent(self, question: str, answer: str, span: Span) -> None:
        """`span`: of the segment that it is about."""
        self._tasks.append((question[:TASK_CHARS], answer[:TASK_CHARS]))
        self._spans.append(span)

    def trained(self, step: int, loss: float) -> None:
        """A point is the mean of its steps; where there are too many, two become one."""
        self._since.append(loss)
        if len(self._since) < self._steps_a_point:
            return
        self._points.append((step, sum(self._since) / len(self._since)))
        self._since = []
        if len(self._points) == POINTS_KEPT:
            self._points = [
                (until, (one + other) / 2)
                for (_, one), (until, other) in zip(self._points[::2], self._points[1::2], strict=True)
            ]
            self._steps_a_point *= 2

    def record(self) -> LearningRecord:
        losses = tuple((step, round(loss, 4)) for step, loss in self._points)
        return LearningRecord(tuple(self._tasks), losses, tuple(self._spans))
