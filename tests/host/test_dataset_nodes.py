"""Datasets, captions and plans over HTTP, without a model: what is found, what is refused, and that no file is lost."""

from __future__ import annotations

import io
import json
import re
import shutil

import pytest
from PIL import Image
from tandem_wan.dev.errors import PromptFailed, QueueRefused
from tandem_wan.dev.testing import ancestors, number_of, text_of, training_graph, workflow

pytestmark = [pytest.mark.host]
FILES, CLIPS, PLAN = "The files, in words", "The clips, in words", "The plan, in words"
THERE, MADE = "The captions that are there, in words", "The captions from the template, in words"
TEMPLATE, DATASET = "Captions from a template", "Clips to learn from"
SMALL = {"width": 64, "height": 64, "frames": 9}
BROKEN_CONFIG = "[model]\ntype = 'wan\nepochs = = 250\n"


def test_the_workflow_checks_a_dataset_without_any_model(client, folder):
    before = state_of(folder)
    graph = checking(folder)
    assert not [node for node in graph.values() if "Loader" in node["class_type"]]
    entry = client.run(graph)
    said = {title: text_of(graph, entry, title) for title in (FILES, CLIPS, THERE, MADE, PLAN)}
    assert said[FILES].startswith("3 of 3 files in ")
    assert all(said.values())
    assert "steps" in said[PLAN]
    config = text_of(graph, entry, "The config, in words")
    assert re.search(r"refused.*250 epochs are .*Warning: 3 clips are few", config, re.DOTALL)
    assert "MERMAID stands in 0 of 3 captions" in said[FILES]
    assert "MERMAID stands in 3 of 3 captions" in said[MADE]
    for title in ("What spoils a LoRA", "The captions that are there"):
        (picture,) = entry["outputs"][number_of(graph, title)]["images"]
        assert min(Image.open(io.BytesIO(client.download(picture))).size) > 100
    assert state_of(folder) == before


def test_the_hosts_own_lists_give_the_same_verdicts(client, folder):
    graph = checking(folder)
    ours = client.run(graph)
    graph["load"] = node("LoadVideoTextDataSetFromFolder", folder=folder.name)
    links = {"videos": ["load", 0], "texts": ["load", 1]}
    graph[number_of(graph, DATASET)] = node(
        "TandemDatasetFromHost", DATASET, trigger="MERMAID", **links, **SMALL
    )
    theirs = client.run(graph)
    for title in (FILES, CLIPS, THERE, MADE, PLAN):
        said = [text_of(graph, entry, title) for entry in (ours, theirs)]
        # What is free on the machine changes from one moment to the next.
        lines = [[line for line in text.splitlines() if "GiB" not in line] for text in said]
        assert lines[0] == lines[1], title


def test_clips_go_out_to_the_hosts_own_nodes(client, folder):
    graph = only(checking(folder), DATASET)
    number = number_of(graph, DATASET)
    graph["out"] = node("TandemDatasetToHost", dataset=[number, 0])
    save = {"filename_prefix": f"{folder.name}/clip", "format": "auto", "codec": "auto"}
    graph["save"] = node("SaveVideo", video=["out", 0], **save)
    saved = client.run(graph)["outputs"]["save"]["images"]
    assert len(saved) == 3
    assert all(len(client.download(each)) > 500 for each in saved)


def test_frames_of_a_graph_are_trained_on(client, base):
    graph = training_graph("from_frames", mode="wait")
    graph["load"] = node("LoadVideoTextDataSetFromFolder", folder="clips")
    graph["frames"] = node("GetVideoComponents", video=["load", 0])
    graph["video"] = node("CreateVideo", images=["frames", 0], fps=16.0)
    links = {"videos": ["video", 0], "texts": ["load", 1], "trigger": "MERMAID"}
    graph[number_of(graph, DATASET)] = node("TandemDatasetFromHost", DATASET, **links, **SMALL)
    client.run(graph)
    written = sorted((base / "output" / "tandem_cache" / "clips").iterdir())
    assert [path.suffix for path in written] == [".mkv"] * 3
    assert list((base / "output" / "tandem" / "from_frames").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("no_such_folder", r"no_such_folder is not there\..*input folder.*Check the spelling"),
        ("../..", r"'\.\./\.\.', which leaves the input folder\..*Give the full path"),
        ("", r"folder is empty\..*my_clips"),
    ],
)
def test_a_folder_that_cannot_be_is_refused_when_it_is_queued(client, folder, given, message):
    graph = checking(folder)
    graph[number_of(graph, DATASET)]["inputs"]["folder"] = given
    refused(client, graph, DATASET, message)


def test_files_that_cannot_be_used_are_named_with_what_to_do(client, folder):
    whole = min(folder.glob("*.mp4"))
    (folder / "cut_off.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (folder / "no_film.mp4").write_bytes(b"this is no video" * 100)
    shutil.copyfile(whole, folder / "latin.mp4")
    (folder / "latin.txt").write_bytes("Ein Mädchen dreht sich.".encode("latin-1"))
    graph = checking(folder)
    entry = client.run(graph)
    files, clips = text_of(graph, entry, FILES), text_of(graph, entry, CLIPS)
    assert files.startswith("3 of 6 files")
    assert re.search(r"cut_off\.mp4 cannot be decoded.*Convert it again", files)
    assert re.search(r"no_film\.mp4 cannot be decoded.*FFmpeg can read", files)
    assert re.search(r"latin\.txt is not UTF-8 text.*Save it as UTF-8", files)
    for name in ("cut_off.mp4", "no_film.mp4", "latin.mp4"):
        assert name in clips


def test_a_folder_of_nothing_but_damage_is_an_error_that_names_it(client, folder):
    for film in folder.glob("*.mp4"):
        film.write_bytes(film.read_bytes()[:300])
    message = r"None of the 3 files.*\.mp4 cannot be decoded.*Mend the files"
    fails(client, checking(folder), DATASET, message)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"templates": "A {person} and [OBJECT] of {trigger}."}, r"\{person\}.*no choices.*Add a line to slots"),
        ({"templates": "A {trigger}.", "trigger": ""}, r"contains \{trigger\}, but no trigger is set.*Set trigger"),
    ],
)  # fmt: skip
def test_a_placeholder_that_nobody_fills_is_an_error(client, folder, inputs, message):
    graph = checking(folder)
    graph[number_of(graph, DATASET)]["inputs"]["trigger"] = ""
    graph[number_of(graph, TEMPLATE)]["inputs"] |= {"slots": "", **inputs}
    before = state_of(folder)
    fails(client, graph, TEMPLATE, message)
    assert state_of(folder) == before


def test_a_placeholder_left_over_on_disk_is_found_with_its_file(client, folder):
    caption = min(folder.glob("*.txt"))
    caption.write_text("A [PERSON] turns into a MERMAID.\n")
    graph = checking(folder)
    said = text_of(graph, client.run(graph), THERE)
    assert re.search(
        rf"(?m)^bad: \[PERSON\] left in 1 caption: {caption.stem}\.mp4\n  -> Replace", said
    )
    assert not said.startswith("GOOD")


def test_captions_are_written_and_brought_back(client, folder):
    before = {path: path.read_bytes() for path in folder.glob("*.txt")}
    graph = only(checking(folder), "Each caption, old and new, in words")
    template = graph[number_of(graph, TEMPLATE)]["inputs"]
    template["write"] = "write"
    client.run(graph)
    written = {path: path.read_text() for path in before}
    assert all("MERMAID" in text for text in written.values())
    # Queued again nothing changes, so there is nothing new to bring back.
    client.run(graph)
    assert {path: path.read_text() for path in before} == written
    template["write"] = "undo"
    client.run(graph)
    assert {path: path.read_bytes() for path in folder.glob("*.txt")} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ('{"stepps": 100}', r"no value called 'stepps'\. Is steps meant.*There are preset"),
        ('{"lora.rang": 16}', r"no value called 'lora.rang'\..*Is lora.rank meant"),
        ("{rank: 16}", r"changes is not JSON .*'\{rank: 16\}'.*JSON object.*Write it like"),
    ],
)
def test_a_plan_with_an_unknown_key_is_refused_when_it_is_queued(client, folder, changes, message):
    graph = checking(folder)
    plan = [number_of(graph, "The plan of a run"), 0]
    graph["edit"] = node("TandemEditPlan", "edit", plan=plan, changes=changes)
    graph["show"] = node("PreviewAny", "show", source=["edit", 1])
    refused(client, graph, "edit", message)


def test_a_config_that_cannot_be_read_is_refused_when_it_is_queued(client, folder):
    graph = {
        "import": node("TandemImportPlan", "import", text=BROKEN_CONFIG),
        "show": node("PreviewAny", "show", source=["import", 1]),
    }
    refused(client, graph, "import", r"text is broken TOML in line 2.*Correct that line")


def test_250_epochs_are_refused_before_a_run_begins(client, base):
    graph = training_graph("far_too_long", mode="wait")
    plan = [number_of(graph, "Plan of the run"), 0]
    clips = len(list((base / "input" / "clips").glob("*.mp4")))
    # A step shows two clips.
    changes = json.dumps({"steps": 250 * clips // 2})
    graph["edit"] = node("TandemEditPlan", "edit", plan=plan, changes=changes)
    trainer = number_of(graph, "Train both experts")
    graph[trainer]["inputs"]["plan"] = ["edit", 0]
    fails(
        client,
        graph,
        "Train both experts",
        r"250 epochs are .*more than 50 are refused.*allow_long",
    )
    assert not (base / "output" / "tandem" / "far_too_long").exists()


# What the tests stand on.


@pytest.fixture
def folder(base, tmp_path):
    """A dataset of its own below the input folder: three real clips with captions."""
    folder = base / "input" / f"checked_{tmp_path.name}"
    shutil.copytree(base / "input" / "clips", folder)
    return folder


def node(class_type: str, title: str = "", /, **inputs: object) -> dict:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title or class_type}}


def checking(folder) -> dict:
    """The shipped graph on a folder at test size."""
    return workflow("check_my_dataset", {DATASET: {"folder": folder.name, **SMALL}})


def only(graph: dict, title: str) -> dict:
    """The node of this title and what it depends on."""
    return ancestors(graph, number_of(graph, title))


def state_of(folder) -> dict:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def refused(client, graph: dict, title: str, message: str) -> None:
    with pytest.raises(QueueRefused) as caught:
        client.queue(graph)
    errors = caught.value.node_errors[number_of(graph, title)]["errors"]
    said = " ".join(f"{e['message']} {e['details']}" for e in errors)
    assert re.search(message, said, re.DOTALL), said
    assert "Exception when validating" not in said


def fails(client, graph: dict, title: str, message: str) -> None:
    with pytest.raises(PromptFailed) as caught:
        client.run(graph)
    assert caught.value.exception_type.endswith("UserError")
    assert title in str(caught.value)
    assert re.search(message, caught.value.message, re.DOTALL), caught.value.message
