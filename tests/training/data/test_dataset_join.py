"""Several folders as one dataset: every clip stays what it was."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem_wan.training.data.dataset import Clip, Dataset, unfilled_captions
from tandem_wan.training.data.join import joined, root_of
from tandem_wan.training.data.report import dataset_report
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.shapes import ClipSize

sizes = st.sampled_from([(832, 480), (480, 832), (64, 64)])
rates = st.sampled_from([16.0, 24.0])
folders = st.sampled_from([Path("one"), Path("two"), Path("three")])
clips = st.builds(
    Clip,
    path=st.sampled_from([Path("a.mp4"), Path("b.mp4")]),
    caption=st.just("A field."),
    frames=st.sampled_from([1, 9, 17]),
    digest=st.sampled_from("abc"),
    size=st.none() | sizes,
    fps=st.none() | rates,
    root=st.none() | folders,
    asked=st.sampled_from([None, 33]),
    repeats=st.sampled_from([0.5, 1.0, 3.0]),
    regularisation=st.booleans(),
)
datasets = st.builds(
    lambda size, frames, **rest: Dataset(size=ClipSize(*size, frames), **rest),
    size=sizes,
    frames=st.sampled_from([17, 81]),
    folder=folders,
    fps=rates,
    clips=st.lists(clips, max_size=4).map(tuple),
)


def dataset(folder, *captions, trigger="", regularisation=False, repeats=1.0, size=(64, 64, 17)):
    made = tuple(
        Clip(
            path=Path(folder, f"{n}.mp4"),
            caption=text,
            frames=17,
            digest=text,
            regularisation=regularisation,
            repeats=repeats,
        )
        for n, text in enumerate(captions)
    )
    return Dataset(folder=Path(folder), clips=made, size=ClipSize(*size), fps=16.0, trigger=trigger)


def as_read(*parts):
    """Everything that decides how a clip is read and counted, whichever dataset it is in."""
    return [
        (
            c.path,
            d.clip_size(c),
            d.clip_fps(c),
            root_of(c, d),
            d.clip_asked(c) if c.frames > 1 else 1,
            c.repeats,
            c.regularisation,
        )
        for d in parts
        for c in d.clips
    ]


@given(datasets, datasets, datasets)
def test_every_clip_is_read_as_before_in_whatever_order_they_are_joined(one, two, three):
    left = joined(joined(one, two), three)
    right = joined(one, joined(two, three))
    assert as_read(left) == as_read(right) == as_read(one, two, three)
    assert left.clips == right.clips and left.size == right.size
    assert left.digest() == right.digest()
    assert left.size.frames == max(one.size.frames, two.size.frames, three.size.frames)
    assert (left.folder, left.fps, left.size[:2]) == (one.folder, one.fps, one.size[:2])


@given(datasets, datasets)
def test_only_what_differs_is_written_on_a_clip(one, two):
    both = joined(one, two)
    for clip in both.clips:
        assert clip.size != both.size[:2] and clip.fps != both.fps and clip.root != both.folder
        assert clip.asked != both.size.frames


def test_a_trigger_is_shared_and_fills_what_waits_for_it():
    main = dataset("main", "A MERMAID.", trigger="MERMAID")
    more = dataset("more", "A {trigger} swims.")
    regular = dataset("reg", "A {trigger}.", regularisation=True)
    for both in (joined(main, more), joined(more, main)):
        assert both.trigger == "MERMAID"
        assert {c.caption for c in both.clips} == {"A MERMAID.", "A MERMAID swims."}
    with_regular = joined(main, regular)
    assert unfilled_captions(with_regular) == ["0.mp4"]
    assert "waits for a trigger in the captions of: 0.mp4" in dataset_report(with_regular)
    assert "MERMAID stands in 1 of 1 captions" in dataset_report(with_regular)


def test_two_triggers_are_refused():
    first, second = dataset("a", "x", trigger="FOX"), dataset("b", "y", trigger="MERMAID")
    with pytest.raises(UserError, match=r"triggers FOX and MERMAID\..*one trigger.*Set the same"):
        joined(first, second)
    assert joined(first, dataset("b", "y", trigger=" FOX ")).trigger == "FOX"


def test_a_file_that_is_in_both_is_noted():
    both = joined(dataset("a", "x", "y"), dataset("b", "y", "z"))
    assert both.notes == ("The same file is in a and b: 0.mp4",)
    assert len(both.clips) == 4


def test_the_report_gives_each_folder_its_share():
    main = dataset("main", "A.", "B.", repeats=3.0)
    regular = dataset("reg", "C.", "D.", regularisation=True, size=(32, 64, 17))
    report = dataset_report(joined(main, regular))
    assert "4 of 4 files in main, reg: 4 clips" in report
    assert "8 shown in an epoch" in report
    assert "main: 75%, 2 clips x 3" in report
    assert "reg (regularisation): 25%, 2 clips x 1" in report
    assert "64x64x17: 2" in report and "32x64x17: 2" in report
    assert joined(main, regular).counts() == (2, 8.0, 2.0)
    assert "All clips are regularisation" in dataset_report(regular)
