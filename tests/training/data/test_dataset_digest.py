"""Two datasets that train differently never share a digest."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tandem_wan.training.data.dataset import Clip, Dataset
from tandem_wan.wan.shapes import ClipSize
from tandem_wan.wan.video import View

EXTRAS = {
    "size": (64, 48),
    "start": 16,
    "fps": 24.0,
    "views": (View(0.0, True), View()),
    "repeats": 2.0,
    "regularisation": True,
}


def clip(**parts) -> Clip:
    plain = {"path": Path("a.mp4"), "caption": "a cat", "frames": 81, "digest": "d" * 64}
    return Clip(**{**plain, **parts})


def digest(*clips: Clip) -> str:
    return Dataset(folder=Path(), clips=clips, size=ClipSize(832, 480, 81), fps=16.0).digest()


@pytest.mark.parametrize("name", EXTRAS)
def test_a_caption_that_reads_like_a_setting_is_no_setting(name):
    value = EXTRAS[name]
    assert digest(clip(**{name: value})) != digest(clip(caption=f"a cat {name}={value}"))


PARTS = st.tuples(
    st.text("a \n+{}\"\\", max_size=6) | st.sampled_from(["a\n" + "d" * 64 + " 81 a", 'a\n+ {"start": 16}']),
    st.sampled_from([{}, *({name: value} for name, value in EXTRAS.items()), EXTRAS]),
)  # fmt: skip


@example(ours=[("a\n" + "d" * 64 + " 81 a", {})], theirs=[("a", {}), ("a", {})])
@example(ours=[('a\n+ {"start": 16}', {})], theirs=[("a", {"start": 16})])
@given(ours=st.lists(PARTS, max_size=3), theirs=st.lists(PARTS, max_size=3))
def test_whatever_differs_is_told_apart(ours, theirs):
    def made(parts):
        return digest(*(clip(caption=caption, **extras) for caption, extras in parts))

    assert (made(ours) == made(theirs)) == (ours == theirs)
