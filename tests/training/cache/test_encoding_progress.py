"""How far the encoding is, and how long the rest takes."""

import pytest
from tandem_wan.training.cache.progress import TELL_EVERY_S, EncodingProgress


class Clock:
    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


@pytest.fixture
def told():
    return []


@pytest.fixture
def now():
    return Clock()


def test_the_time_left_goes_by_the_work_of_the_clips_that_are_missing(told, now):
    progress = EncodingProgress(5, told.append, now=now)
    progress.found("a")
    for work in (10.0, 10.0, 30.0, 50.0):
        progress.missing(work)
    progress.made("b", 10.0, 1.0)
    progress.made("c", 10.0, 2.0)
    progress.made("d", 30.0, 5.0)
    progress.made("e", 50.0, 4.0)
    lefts = [event.seconds_left for event in told[1:]]
    assert lefts == pytest.approx([9.0, 12.0, 8.0, 0.0])
    assert [(e.done, e.total, e.cached) for e in told] == [(n, 5, 1) for n in range(1, 6)]
    assert told[0].seconds_left is None


def test_clips_from_the_cache_are_told_now_and_then_and_at_the_end(told, now):
    progress = EncodingProgress(1000, told.append, now=now)
    for number in range(1000):
        now.time = number * TELL_EVERY_S / 100
        progress.found(str(number))
    assert told[-1].done == told[-1].cached == 1000
    assert len(told) == pytest.approx(11, abs=1)


def test_nobody_has_to_listen():
    progress = EncodingProgress(1, None)
    progress.found("a")
