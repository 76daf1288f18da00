"""The node that reads datasets: in a chain, by its defaults, and what the host asks it before it runs."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest
from PIL import Image

pytestmark = pytest.mark.comfy


@pytest.fixture
def node(comfy, monkeypatch, tmp_path):
    import folder_paths
    from tandem_wan.nodes.dataset import TandemDataset

    for place in ("input", "output"):
        (tmp_path / place).mkdir()
        monkeypatch.setattr(folder_paths, f"{place}_directory", str(tmp_path / place))
    return TandemDataset.PREPARE_CLASS_CLONE(None)


@pytest.fixture
def pictures(tmp_path):
    """`pictures(name, (width, height), ...)` makes a folder of pictures under the host's input folder."""

    def make(name, *sizes):
        folder = tmp_path / "input" / name
        folder.mkdir(parents=True)
        for number, size in enumerate(sizes):
            colour = (number, len(name), ord(name[0]))
            Image.new("RGB", size, colour).save(folder / f"{number}.png")
        lines = [f"{number}.png: A {{trigger}}." for number in range(len(sizes))]
        (folder / "captions.txt").write_text("\n".join(lines), encoding="utf-8")
        return name

    return make


def test_a_chain_is_one_dataset_with_weights_and_a_regularisation_set(node, pictures):
    main = pictures("main", (832, 480), (480, 832))
    small = pictures("small", (64, 64), (64, 64))
    plain = pictures("plain", (832, 480), (832, 480))
    first, _ = node.execute(main, trigger="MERMAID", repeats=3.0).result
    second, _ = node.execute(small, width=64, height=64, fps=24, dataset=first).result
    third, report = node.execute(
        plain, trigger="MERMAID", regularisation=True, dataset=second
    ).result
    sizes = [third.clip_size(clip)[:2] for clip in third.clips]
    assert sizes == [(832, 480), (480, 832), (64, 64), (64, 64), (832, 480), (832, 480)]
    assert [third.clip_fps(clip) for clip in third.clips] == [16, 16, 24, 24, 16, 16]
    assert third.folder.name == "main" and len(third.parts) == 3
    assert {clip.caption for clip in third.clips} == {"A MERMAID."}
    assert third.counts() == (4, 10.0, 2.0)
    assert "6 of 6 files in main, small, plain" in report
    assert "main: 60%, 2 clips x 3" in report and "plain (regularisation): 20%" in report


def test_two_triggers_in_a_chain_are_refused(node, pictures):
    first, _ = node.execute(pictures("a", (64, 64)), trigger="FOX").result
    with pytest.raises(ValueError, match="triggers FOX and MERMAID"):
        node.execute(pictures("b", (64, 64)), trigger="MERMAID", dataset=first)


def test_the_defaults_of_the_node_are_those_of_the_settings(node):
    from tandem_wan.training.data.dataset import DatasetSettings

    settings = {field.name: field.default for field in fields(DatasetSettings)}
    inputs = {i.id: getattr(i, "default", None) for i in node.GET_SCHEMA().inputs}
    assert {name: inputs[name] for name in settings if name != "folder"} == {
        name: value for name, value in settings.items() if name != "folder"
    }
    assert list(inputs)[7:] == [
        "clip_mode",
        "clips_per_file",
        "fit",
        "flips",
        "crops",
        "repeats",
        "regularisation",
        "dataset",
    ]


def test_what_was_found_is_kept_in_the_hosts_output_folder(node, pictures, tmp_path):
    name = pictures("main", (64, 64))
    first, _ = node.execute(name).result
    kept = tmp_path / "output" / "tandem_cache" / "files.jsonl"
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 2
    kept.write_text("broken", encoding="utf-8")
    assert node.execute(name).result[0] == first


def test_the_fingerprint_changes_with_captions_and_every_setting(node, pictures, tmp_path):
    name = pictures("main", (64, 64))
    settings = {"clip_mode": "head", "repeats": 1.0, "flips": False, "dataset": None}
    before = node.fingerprint_inputs(name, **settings)
    assert node.fingerprint_inputs(name, **settings) == before
    for changed in ({"clip_mode": "scenes"}, {"repeats": 2.0}, {"flips": True}):
        assert node.fingerprint_inputs(name, **{**settings, **changed}) != before
    rows = json.dumps({"file": "0.png", "caption": "A {trigger} swims."})
    (tmp_path / "input" / "main" / "rows.jsonl").write_text(rows, encoding="utf-8")
    assert node.fingerprint_inputs(name, **settings) != before
    assert math.isnan(node.fingerprint_inputs(None, **settings))


def test_the_queue_refuses_what_it_can_know(node, pictures):
    assert node.validate_inputs(pictures("main", (64, 64))) is True
    assert "is not there" in node.validate_inputs("nowhere")
    assert "frames is 80" in node.validate_inputs("main", frames=80)
    assert node.validate_inputs(None, width=None) is True
