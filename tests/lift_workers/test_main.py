import pytest

from lift_config.settings import Settings
from lift_workers.__main__ import child_environment


@pytest.mark.parametrize(
    ("settings", "visible", "index", "seen"),
    [
        (Settings(workers=2), None, 1, "1"),
        (Settings(workers=2), "4,6", 1, "6"),  # the operator's own choice is counted through
        (Settings(workers=1), "4,6", 0, "4,6"),
        (Settings(workers=1), None, 0, None),
        (Settings(workers=2, device="cpu"), None, 1, None),
    ],
)
def test_each_of_several_workers_sees_its_own_gpu(
    settings: Settings, visible: str | None, index: int, seen: str | None
) -> None:
    outside = {"PATH": "/bin"} | ({"CUDA_VISIBLE_DEVICES": visible} if visible else {})
    child = child_environment(outside, settings, index)
    assert child.get("CUDA_VISIBLE_DEVICES") == seen
    assert child["PATH"] == "/bin"
