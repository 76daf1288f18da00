"""Stacks that are saved, shared and read back from videos, through a real ComfyUI over HTTP."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from urllib.parse import quote

import av
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tandem_wan.dev.errors import QueueRefused
from tandem_wan.dev.testing import number_of, tiny_files, workflow
from tandem_wan.nodes.host.media_tags import media_entries

pytestmark = [pytest.mark.host]
HIGH, LOW = "recipe_high_noise.safetensors", "recipe_low_noise.safetensors"
ROWS = [{"lora": HIGH, "lora_low": LOW, "high": 0.5, "low": 0.25, "kind": "style"}]
STACK, APPLY = "The stack", "Put the stack on the models"


@pytest.fixture(scope="module")
def loras(base):
    """A pair of small LoRAs with a trigger word; their SHA-256 by name."""
    (network,) = (base / "models" / "diffusion_models").glob("tiny*high*.safetensors")
    layer = "blocks.0.self_attn.q"
    with safe_open(network, framework="pt") as file:
        rows, columns = file.get_slice(f"{layer}.weight").get_shape()
    digests = {}
    for number, name in enumerate((HIGH, LOW)):
        path = base / "models" / "loras" / name
        tensors = {
            f"diffusion_model.{layer}.lora_A.weight": torch.full((4, columns), 0.01 + number),
            f"diffusion_model.{layer}.lora_B.weight": torch.full((rows, 4), 0.01),
        }
        save_file(tensors, path, metadata={"tandem": json.dumps({"trigger": "MERMAID"})})
        digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


@pytest.fixture
def stacks(base):
    folder = base / "user" / "default" / "tandem" / "stacks"
    yield folder
    for path in folder.glob("*.json"):
        path.unlink()


def ask(client, method, path, body=None):
    """(status, JSON answer) of a request."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(client.url + path, data=data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def at(name, tail=""):
    return f"/tandem/stacks/{quote(name, safe='')}{tail}"


def refused(client, method, path, body=None):
    status, answer = ask(client, method, path, body)
    assert list(answer) == ["error"] and list(answer["error"]) == ["came", "can_be", "to_do"]
    return status, " ".join(answer["error"].values())


def test_a_stack_is_saved_renamed_shared_and_deleted_over_http(client, loras, stacks):
    status, saved = ask(client, "PUT", at("my anime"), {"version": 1, "rows": ROWS, "note": "n"})
    assert (status, saved["name"], saved["note"]) == (201, "my anime", "n")
    assert {note["name"]: note["sha256"] for note in saved["files"]} == loras
    assert ask(client, "GET", at("my anime")) == (200, saved)
    listed = {line["name"]: line for line in client.get("/tandem/stacks")["stacks"]}
    assert listed["my anime"]["triggers"] == ["MERMAID"] and listed["my anime"]["rows"] == 1
    assert listed["example: fast anime"]["example"] and listed["example: fast anime"]["rows"] == 2
    assert ask(client, "PUT", at("my anime"), {"version": 1, "rows": ROWS, "note": "n"})[0] == 200
    assert refused(client, "PUT", at("my anime"), ROWS)[0] == 409
    status, replaced = ask(client, "PUT", at("my anime", "?overwrite=true"), ROWS)
    assert (status, replaced["note"]) == (200, "")
    assert json.loads((stacks / ".deleted" / "my anime.1.json").read_text()) == saved
    assert ask(client, "POST", at("my anime", "/rename"), {"to": "アニメ"})[0] == 200
    assert ask(client, "GET", at("アニメ"))[1] == {**replaced, "name": "アニメ"}
    elsewhere = {**saved, "rows": [{**ROWS[0], "lora": "not_here.safetensors"}]}
    elsewhere["files"] = [
        {"name": "not_here.safetensors", "sha256": "ab" * 32, "size": 5},
        saved["files"][1],
    ]
    status, imported = ask(
        client, "POST", "/tandem/stacks/import?name=from%20a%20friend", elsewhere
    )
    assert (status, imported["name"], imported["files"][0]["sha256"]) == (
        201,
        "from a friend",
        "ab" * 32,
    )
    assert ask(client, "DELETE", at("from a friend"))[1]["kept"] == ".deleted/from a friend.1.json"
    assert refused(client, "GET", at("from a friend"))[0] == 404


def test_what_cannot_be_done_with_a_stack_is_refused_with_what_to_do(client, loras, stacks):
    assert ask(client, "PUT", at("a"), ROWS)[0] == ask(client, "PUT", at("b"), [])[0] == 201
    for method, path, body, status, said in (
        ("GET", at("nothing"), None, 404, "Saved are: a, b"),
        ("DELETE", at("nothing"), None, 404, "No stack is saved as 'nothing'"),
        ("POST", at("nothing", "/rename"), {"to": "c"}, 404, "No stack"),
        ("POST", at("a", "/rename"), {"to": "b"}, 409, "Another stack"),
        ("POST", at("a", "/rename"), {"from": "b"}, 400, '{"to": "new name"}'),
        ("POST", at("a", "/rename"), {"to": "../b"}, 400, "has '/'"),
        ("POST", at("a", "/rename"), b"{", 400, "not JSON"),
        ("GET", at("..\\..\\comfy.settings"), None, 400, "The stack's name"),
        ("GET", at("../../comfy.settings"), None, 400, "The stack's name"),
        ("PUT", at(".hidden"), ROWS, 400, "a dot at an end"),
        ("PUT", at("example: mine"), ROWS, 400, "has ':'"),
        ("PUT", at("c"), {"version": 9, "rows": []}, 400, "version 9"),
        ("PUT", at("c"), [{"lora": "x", "strenght": 1}], 400, "Row 1 has strenght"),
        ("PUT", at("c"), b"\xff", 400, "UTF-8"),
        ("PUT", at("c", "?overwrite=maybe"), ROWS, 400, "overwrite is 'maybe'"),
        ("PUT", at("c"), [{"lora": "truncated.safetensors"}], 400, "truncated"),
        ("POST", "/tandem/stacks/import", ROWS, 400, "name is ''"),
    ):
        found, text = refused(client, method, path, body)
        assert (found, said in text) == (status, True), (method, path, found, text)
    assert sorted(path.name for path in stacks.glob("*.json")) == ["a.json", "b.json"]


def test_a_video_tells_its_stack_also_when_the_stack_came_from_the_cache(
    client, base, loras, stacks
):
    """Without extra_pnginfo from the client; read by the node, from mp4, webm and png, and after a remux."""
    graph = _graph(seed=1)
    first, second = client.queue(graph), client.queue(_graph(seed=2))
    entries = [client.follow(prompt) for prompt in (first, second)]
    cached = [m for kind, m in entries[1]["status"]["messages"] if kind == "execution_cached"]
    assert number_of(graph, APPLY) in cached[0]["nodes"], "the second stack came from the cache"
    for entry in entries:
        mp4 = _output(base, entry, number_of(graph, "Save clip"))
        document = json.loads(_tags(mp4)["tandem"])
        assert list(document["stacks"]) == [number_of(graph, APPLY)]
        recipe = document["stacks"][number_of(graph, APPLY)]
        assert {note["name"]: note["sha256"] for note in recipe["files"]} == loras
        assert recipe["triggers"] == ["MERMAID"]
        files = [mp4, *(_output(base, entry, f"save_{kind}") for kind in ("webm", "png"))]
        files.append(_remuxed(mp4))
        for path in files:
            assert media_entries(path)["tandem"] == document
            _assert_tells(client, base, path)


def test_a_video_without_the_entry_tells_its_stack_by_the_stored_prompt(
    client, base, loras, stacks
):
    entry = client.run(_graph(seed=3))
    mp4 = _output(base, entry, number_of(_graph(seed=3), "Save clip"))
    assert "tandem" in _tags(mp4)
    _assert_tells(client, base, _remuxed(mp4, without=("tandem",)))
    bare = _remuxed(mp4, without=("tandem", "prompt"))
    with pytest.raises(QueueRefused, match="tells of no stack"):
        client.queue(_reading(base, bare))


def test_a_saved_stack_samples_like_its_rows_and_is_found_after_its_file_was_renamed(
    client, base, loras, stacks
):
    graph = _graph(seed=4)
    stack = number_of(graph, STACK)
    graph["keep"] = _node("TandemSaveStack", stack=[stack, 0], name="kept", note="rain")
    client.run(graph)
    assert json.loads((stacks / "kept.json").read_text())["rows"][0]["high"] == 0.5
    folder = base / "models" / "loras"
    (folder / HIGH).rename(folder / "renamed.safetensors")
    try:
        shown = client.run(_loading(name="kept"))["outputs"]["show"]["text"][0]
    finally:
        (folder / "renamed.safetensors").rename(folder / HIGH)
    assert "kept: 1 of 1 rows on, 2 files\nrain" in shown
    assert f"{HIGH} is renamed.safetensors (same content)" in shown
    moved = folder / HIGH
    moved.rename(base / HIGH)
    try:
        with pytest.raises(
            QueueRefused, match=rf"(?s)needs 1 file that no.*- {HIGH}: [\d,]+ bytes"
        ):
            client.queue(_loading(name="kept"))
    finally:
        (base / HIGH).rename(moved)


def test_an_example_asks_for_its_files_when_it_is_queued_and_takes_the_chosen_ones(client, loras):
    with pytest.raises(QueueRefused, match=r"leaves 3 files for you to choose"):
        client.queue(_loading(name="example: fast anime"))
    files = f"style = {HIGH}\nspeed_high_noise = {HIGH}\nspeed_low_noise = {LOW}"
    shown = client.run(_loading(files=files))["outputs"]["show"]["text"][0]
    assert f"style is {HIGH} (chosen)" in shown
    words = _loading(name="example: influencer", files=f"{files}\ncharacter = {LOW}")
    words["show"]["inputs"]["source"] = ["load", 1]
    assert client.run(words)["outputs"]["show"]["text"][0] == "MERMAID"
    with pytest.raises(QueueRefused, match=r"No stack is saved as 'gone'"):
        client.queue(_loading(name="gone"))
    with pytest.raises(QueueRefused, match=r"recipe: Row 1 has strenght"):
        client.queue(_loading(recipe='[{"lora": "a", "strenght": 1}]'))


def _graph(seed):
    """Image to video at test size with a stack of `ROWS`; saved as mp4, webm and png."""
    changes = {
        STACK: {"rows": json.dumps(ROWS)},
        "Image to video": {"width": 32, "height": 32, "length": 5},
        "Sample clip": {"steps": 2, "seed": seed},
    }
    graph = workflow("image_to_video", changes)
    tiny_files(graph)
    images = [number_of(graph, "Decode clip"), 0]
    graph["save_webm"] = _node(
        "SaveWEBM", images=images, filename_prefix="webm", codec="vp9", fps=16.0, crf=32.0
    )
    graph["save_png"] = _node("SaveImage", images=images, filename_prefix="png")
    return graph


def _node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def _loading(**inputs):
    return {
        "load": _node("TandemLoadStack", **inputs),
        "show": _node("PreviewAny", source=["load", 2]),
    }


def _reading(base, path, **inputs):
    name = f"{path.relative_to(base / 'output').as_posix()} [output]"
    return {
        "read": _node("TandemStackFromVideo", file=name, **inputs),
        "show": _node("PreviewAny", source=["read", 3]),
    }


def _assert_tells(client, base, path):
    shown = client.run(_reading(base, path))["outputs"]["show"]["text"][0]
    (row,) = json.loads(shown)["rows"]
    assert {key: row[key] for key in ROWS[0]} == ROWS[0], path.name


def _output(base, entry, node):
    (kind,) = [key for key in entry["outputs"][node] if key != "animated"]
    found = entry["outputs"][node][kind][0]
    return base / "output" / found["subfolder"] / found["filename"]


def _tags(path):
    with av.open(str(path)) as container:
        return dict(container.metadata)


def _remuxed(path, without=()):
    """The same packets in a new mp4, with the tags but for those in `without`."""
    target = path.with_name(f"{path.stem}_remuxed_{len(without)}.mp4")
    options = {"movflags": "use_metadata_tags"}
    with av.open(str(path)) as source, av.open(str(target), "w", options=options) as out:
        out.metadata.update({k: v for k, v in source.metadata.items() if k not in without})
        stream = source.streams.video[0]
        copied = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copied
                out.mux(packet)
    return target
