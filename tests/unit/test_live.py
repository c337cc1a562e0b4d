import pytest

from emflow.cli.live import LiveSettings
from emflow.errors import SettingError
from emflow.live import ReadyFiles


def watcher(batch_size: int = 2) -> ReadyFiles[str]:
    return ReadyFiles(settle_seconds=10, batch_size=batch_size, batch_age_seconds=60)


def test_a_growing_file_waits():
    ready = watcher(batch_size=1)
    assert ready.look({"a": 100}, now=0) == []
    assert ready.look({"a": 200}, now=8) == []
    assert ready.look({"a": 200}, now=17) == []
    assert ready.look({"a": 200}, now=18) == ["a"]


def test_a_batch_is_closed_by_count_with_the_oldest_first():
    ready = watcher()
    ready.look({"z": 1}, now=0)
    ready.look({"z": 1, "b": 1}, now=5)
    ready.look({"a": 1, "z": 1, "b": 1}, now=6)
    assert ready.look({"a": 1, "z": 1, "b": 1}, now=14) == []
    # Three are whole, two make a batch: the third waits for a fourth, or for its age.
    assert ready.look({"a": 1, "z": 1, "b": 1}, now=17) == ["z", "b"]
    assert ready.look({"a": 1}, now=70) == []
    assert ready.look({"a": 1}, now=76) == ["a"]


def test_a_batch_is_closed_by_age_with_all_that_is_whole():
    ready = watcher(batch_size=100)
    ready.look({"a": 1}, now=0)
    ready.look({"a": 1, "b": 1}, now=50)
    assert ready.look({"a": 1, "b": 1}, now=69) == []
    assert ready.look({"a": 1, "b": 1, "new": 1}, now=70) == ["a", "b"]


def test_a_file_that_vanished_is_forgotten():
    ready = watcher(batch_size=1)
    ready.look({"a": 1}, now=0)
    ready.look({}, now=5)
    assert ready.look({"a": 1}, now=11) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"until_idle_minutes": -1}, "--until-idle -1"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"batch_age_seconds": float("nan")}, "--batch-age nan"),
        ({"settle_seconds": -0.1}, "--settle -0.1"),
        ({"poll_seconds": 0.0}, "--poll 0.0: should be 0.1 or more"),
    ],
)
def test_absurd_settings_are_refused(settings, told):
    with pytest.raises(SettingError, match=told):
        LiveSettings(**settings)
