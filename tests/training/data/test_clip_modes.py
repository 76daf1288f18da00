"""Which parts of a file are taken: inside it, 4k+1 long, and as each mode promises."""

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.data.clip_modes import (
    Window,
    clip_windows,
    cut_frames,
    shortest_use,
    usable_frames,
)
from tandem_wan.training.data.dataset import CLIP_MODES

modes = st.sampled_from(CLIP_MODES)
totals = st.integers(0, 700)
wishes = st.integers(0, 25).map(lambda k: 4 * k + 1)
cuts = st.lists(st.integers(-5, 720), max_size=12)
limits = st.integers(0, 9)


@given(modes, totals, wishes, cuts, limits)
def test_every_window_lies_in_the_file_and_is_4k_plus_1_from_half_of_what_is_wanted(
    mode, total, wanted, cuts, limit
):
    windows = clip_windows(mode, total, wanted, cuts=cuts, limit=limit)
    for start, frames in windows:
        assert start >= 0 and start + frames <= total
        assert frames % 4 == 1
        assert wanted / 2 <= frames <= wanted
    assert [w.start for w in windows] == sorted({w.start for w in windows})
    assert not limit or len(windows) <= limit


@given(modes, totals, wishes)
def test_a_file_gives_windows_unless_it_has_less_than_half_of_the_frames(mode, total, wanted):
    slow = [n for n in range(1, min(total, wanted) + 1) if n % 4 == 1 and 2 * n >= wanted]
    assert usable_frames(total, wanted) == max(slow, default=0)
    assert bool(clip_windows(mode, total, wanted)) == bool(slow)
    assert usable_frames(shortest_use(wanted), wanted)
    assert not usable_frames(shortest_use(wanted) - 1, wanted)


@given(totals, wishes)
def test_overlapping_windows_cover_the_whole_file_with_as_few_as_can_be(total, wanted):
    windows = clip_windows("overlapping", total, wanted)
    shown = {n for start, frames in windows for n in range(start, start + frames)}
    assert not windows or shown == set(range(total))
    assert not windows or (len(windows) - 1) * windows[0].frames < total


@given(totals, wishes, limits)
def test_uniform_windows_are_evenly_apart_from_beginning_to_end(total, wanted, limit):
    windows = clip_windows("uniform", total, wanted, limit=limit)
    steps = [second.start - first.start for first, second in pairwise(windows)]
    assert not steps or max(steps) - min(steps) <= 1
    assert not steps or min(steps) >= windows[0].frames // 2
    if len(windows) > 1:
        assert windows[0].start == 0 and sum(windows[-1]) == total
    if windows and total >= 3 * wanted * max(limit, 2):
        assert len(windows) == (limit or 2)


@given(totals, wishes, cuts, limits)
def test_scenes_never_cross_a_cut_and_lie_in_the_middle_of_their_shot(total, wanted, cuts, limit):
    for start, frames in clip_windows("scenes", total, wanted, cuts=cuts, limit=limit):
        inside = range(start + 1, start + frames)
        assert not set(cuts) & set(inside)
        before = max([0, *(cut for cut in cuts if cut <= start)])
        after = min([total, *(cut for cut in cuts if cut > start)])
        assert abs((start - before) - (after - start - frames)) <= 1


@given(totals, wishes, cuts)
def test_without_a_limit_every_shot_that_is_long_enough_gives_a_window(total, wanted, cuts):
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < total}), total]
    long_enough = sum(bool(usable_frames(b - a, wanted)) for a, b in pairwise(edges))
    assert len(clip_windows("scenes", total, wanted, cuts=cuts)) == long_enough


def test_each_mode_on_one_file():
    def windows(mode, **more):
        return clip_windows(mode, 100, 21, **more)

    assert windows("head") == [Window(0, 21)]
    assert windows("middle") == [Window(39, 21)]
    assert windows("uniform") == [Window(0, 21), Window(79, 21)]
    assert windows("uniform", limit=3) == [Window(0, 21), Window(40, 21), Window(79, 21)]
    assert windows("uniform", limit=1) == windows("middle")
    assert [w.start for w in windows("overlapping")] == [0, 20, 40, 59, 79]
    assert windows("scenes") == windows("middle")
    assert windows("scenes", cuts=[30, 45, 90]) == [Window(4, 21), Window(31, 13), Window(57, 21)]
    assert windows("scenes", cuts=[30, 45], limit=1) == [Window(31, 13)]


@pytest.mark.parametrize("source_fps", [16, 23.976, 24, 25, 29.97, 30, 60])
def test_a_cut_in_seconds_is_the_first_frame_that_shows_the_new_shot(source_fps):
    # the source frame nearest to k / 16 s, the earlier one of two as near
    shown = [
        min(range(240), key=lambda n: (round(abs(n / source_fps - k / 16), 9), n))
        for k in range(60)
    ]
    for first in range(1, max(shown) + 1):
        slow = next(k for k, frame in enumerate(shown) if frame >= first)
        assert cut_frames([first / source_fps], fps=16, source_fps=source_fps) == [slow]


@given(st.lists(st.floats(0.01, 0.25), min_size=2, max_size=60), st.data())
def test_at_a_variable_rate_no_window_shows_two_shots(lengths, data):
    first = data.draw(st.integers(1, len(lengths) - 1))
    starts = [0.0, *accumulate(lengths)]
    total = int(starts[-1] * 16)
    shown = [min(range(len(lengths)), key=lambda n: abs(starts[n] - k / 16)) for k in range(total)]
    cut = cut_frames([starts[first]], fps=16, source_fps=30, variable=True)
    for start, frames in clip_windows("scenes", total, 5, cuts=cut):
        shots = {shown[k] >= first for k in range(start, start + frames)}
        assert len(shots) == 1 or frames == 1
