"""Which clips are copies: against a comparison of all pairs, one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.doctor import pairs as clip_pairs
from tandem_wan.training.doctor.pairs import (
    NEAR_BITS,
    ONE_FILM_BITS,
    Part,
    different,
    near_copies,
    same_files,
)


def parts_of(*files: str, first: float = 0.0) -> list[Part]:
    return [Part(Path(name), name[0], first, first + 1) for name in files]


def grey(hashes: np.ndarray) -> list[np.ndarray]:
    return [np.full((5, 12, 12, 3), 90, np.uint8)] * len(hashes)


@given(seed=st.integers(0, 10_000), block=st.integers(1, 9), clips=st.integers(1, 24))
def test_near_copies_are_those_of_a_comparison_of_all_pairs(seed, block, clips):
    rng = np.random.default_rng(seed)
    hashes = rng.random((clips, 5, 64)) < 0.5
    for clip in range(1, clips):
        if rng.random() < 0.5:
            flips = rng.random((5, 64)) < rng.choice([0.02, 0.1, 0.2])
            hashes[clip] = hashes[rng.integers(clip)] ^ flips
    usable = rng.random(clips) < 0.9
    parts = [Part(Path(f"{n}.mp4"), str(n), 0.0, 1.0) for n in range(clips)]
    expected = {}
    for later in range(clips):
        for earlier in range(later):
            bits = (hashes[later] != hashes[earlier]).sum(axis=1).mean()
            known = expected.get(later, (0, np.inf))[1]
            if usable[later] and usable[earlier] and bits <= NEAR_BITS and bits < known:
                expected[later] = (earlier, bits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_pairs, "BLOCK", block)
        found = near_copies(hashes, grey(hashes), parts, usable)
    assert {c.clip: c.bits for c in found} == pytest.approx(
        {n: b for n, (_, b) in expected.items()}
    )
    assert {c.clip: c.of for c in found} == {n: of for n, (of, _) in expected.items()}


def test_parts_of_a_file_that_overlap_are_no_copies_and_others_only_when_they_are_the_same():
    hashes = np.zeros((3, 5, 64), bool)
    hashes[2, :, :3] = True
    film = Path("film.mp4")
    parts = [Part(film, "a", 0, 1), Part(film, "a", 1, 2), Part(film, "a", 5, 6)]
    usable = np.ones(3, bool)
    assert near_copies(hashes, grey(hashes), parts, usable) == [], (
        "3 bits are too many within a film"
    )
    hashes[2] = False
    assert [(c.clip, c.of) for c in near_copies(hashes, grey(hashes), parts, usable)] == [(2, 0)]


def test_files_of_the_same_content_are_copies_part_by_part():
    first, second = parts_of("a.mp4", "a2.mp4", "b.mp4"), parts_of("a.mp4", "a2.mp4", first=3.0)
    found = same_files([*first, *second])
    assert [(c.clip, c.of) for c in found] == [(1, 0), (4, 3)]
    unknown = [Part(Path(name), "", 0, 1) for name in ("a", "b")]
    assert same_files(unknown) == [], "without digests nothing is known"


def test_what_has_the_same_shapes_in_other_colours_is_no_copy():
    hashes, usable = np.zeros((2, 5, 64), bool), np.ones(2, bool)
    parts = parts_of("a.mp4", "b.mp4")
    red, green = (np.zeros((5, 12, 12, 3), np.uint8) for _ in range(2))
    red[:, 5, 5, 0] = green[:, 5, 5, 1] = 200
    assert near_copies(hashes, [red, green], parts, usable) == []
    assert near_copies(hashes, [red, red + 4], parts, usable) != []


def test_a_clip_in_a_dataset_twice_is_a_copy_and_so_is_no_other_part_of_its_file():
    film = Path("film.mp4")
    clip, later, slower = (
        Part(film, "a", 0, 1, 17),
        Part(film, "a", 1, 2, 17),
        Part(film, "a", 0, 1, 9),
    )
    assert [(c.clip, c.of) for c in same_files([clip, later, slower, clip])] == [(3, 0)]
    unknown = clip._replace(digest="")
    assert [(c.clip, c.of) for c in same_files([unknown, later, unknown])] == [(2, 0)]


@pytest.mark.parametrize("tinted", [False, True])
def test_many_clips_that_are_alike_take_few_comparisons(monkeypatch, tinted):
    """With colours of their own each, too, where no comparison ends the search."""
    count, asked = 300, []
    hashes, usable = np.zeros((count, 5, 64), bool), np.ones(count, bool)
    tints = [np.full((5, 12, 12, 3), 90, np.uint8)] * count
    if tinted:
        tints = [np.full((5, 12, 12, 3), 20 * (n % 12), np.uint8) for n in range(count)]
    parts = [Part(Path(f"{n}.mp4"), str(n), 0.0, 1.0) for n in range(count)]
    same = clip_pairs._same_colours
    monkeypatch.setattr(clip_pairs, "_same_colours", lambda a, b: asked.append(1) or same(a, b))
    found = near_copies(hashes, tints, parts, usable)
    assert len(asked) <= 12 * count
    heads = 12 if tinted else 1
    assert [(c.clip, c.of) for c in found] == [(n, n % heads) for n in range(heads, count)]


def test_the_search_for_a_copy_ends_where_nothing_alike_has_its_colours(monkeypatch):
    count, asked = 400, []
    hashes, usable = np.zeros((count, 5, 64), bool), np.ones(count, bool)
    parts = [Part(Path(f"{n}.mp4"), str(n), 0.0, 1.0) for n in range(count)]
    monkeypatch.setattr(clip_pairs, "_same_colours", lambda a, b: bool(asked.append(1)))
    assert near_copies(hashes, grey(hashes), parts, usable) == []
    assert len(asked) <= clip_pairs.MOST_COMPARED * count


@given(seed=st.integers(0, 10_000), clips=st.integers(0, 12))
def test_clips_that_differ_are_those_of_a_comparison_one_by_one(seed, clips):
    rng = np.random.default_rng(seed)
    hashes = [rng.random((5, 64)) < 0.5 for _ in range(clips)]
    for clip in range(1, clips):
        if rng.random() < 0.6:
            other = hashes[rng.integers(clip)][rng.integers(5)]
            hashes[clip][rng.integers(5)] = other ^ (rng.random(64) < rng.choice([0, 0.2, 0.3]))
    expected: list[int] = []
    for clip in range(clips):
        bits = [(a != b).sum() for o in expected for a in hashes[o] for b in hashes[clip]]
        if all(each > ONE_FILM_BITS for each in bits):
            expected.append(clip)
    assert different(hashes) == expected
