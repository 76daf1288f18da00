"""The node that captions a dataset: preview changes nothing, write and undo do, and a bad table is refused early."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.comfy
TEMPLATE = "A {person} turns into a {trigger}."


@pytest.fixture
def dataset(comfy, tmp_path):
    from tandem_wan.training.data.dataset import Clip, Dataset
    from tandem_wan.wan.shapes import ClipSize

    (tmp_path / "a.txt").write_text("old", encoding="utf-8")
    clips = tuple(
        Clip(path=tmp_path / name, caption=text, frames=9, digest="")
        for name, text in (("a.mp4", "old"), ("b.mp4", ""))
    )
    size = ClipSize(64, 64, 9)
    return Dataset(folder=tmp_path, clips=clips, size=size, fps=16.0, trigger="MERMAID")


@pytest.fixture
def node(comfy):
    from tandem_wan.nodes.caption_template import TandemCaptionTemplate

    return TandemCaptionTemplate.PREPARE_CLASS_CLONE(None)


def files(folder):
    return {p.name: p.read_text(encoding="utf-8") for p in folder.glob("*") if p.is_file()}


def test_preview_write_and_undo(node, dataset):
    settings = {"templates": TEMPLATE, "table": "file, person\na, woman\nb, man"}
    captions, text = node.execute(dataset, **settings).result
    assert [clip.caption for clip in captions.clips] == [
        "A woman turns into a MERMAID.",
        "A man turns into a MERMAID.",
    ]
    assert "b.mp4: A man turns into a MERMAID." in text and "1 new, 0 the same, 1 changed" in text
    assert files(dataset.folder) == {"a.txt": "old"}
    _, text = node.execute(dataset, write="write", **settings).result
    assert "Written: 1 new, 1 changed" in text
    assert files(dataset.folder) == {
        "a.txt": "A woman turns into a MERMAID.\n",
        "b.txt": "A man turns into a MERMAID.\n",
    }
    back, text = node.execute(captions, write="undo").result
    assert files(dataset.folder) == {"a.txt": "old"} and text.startswith("Undone, from ")
    assert [clip.caption for clip in back.clips] == ["old", ""]


def test_nothing_is_written_when_one_clip_has_no_caption(node, dataset):
    with pytest.raises(ValueError, match=r"no row of b\.mp4"):
        node.execute(dataset, TEMPLATE, table="file,person\na,woman", write="write")
    with pytest.raises(ValueError, match=r"\[PERSON\] left in it"):
        node.execute(dataset, "A [PERSON] swims.", write="write")
    assert files(dataset.folder) == {"a.txt": "old"}


def test_a_table_that_cannot_be_read_is_refused_at_queue_time_but_not_for_undo(node):
    assert "two rows for a" in node.validate_inputs(table="file,x\na,1\na,2")
    assert node.validate_inputs(templates="", write="undo") is True
    assert node.validate_inputs(templates=None, slots=None, table=None, write=None) is True


def test_after_undo_the_captions_of_a_list_are_in_the_output_again(node, dataset):
    (dataset.folder / "captions.txt").write_text("b.mp4: A listed one", encoding="utf-8")
    written, _ = node.execute(dataset, TEMPLATE, "person = man", write="write").result
    back, _ = node.execute(written, write="undo").result
    assert [clip.caption for clip in back.clips] == ["old", "A listed one"]
