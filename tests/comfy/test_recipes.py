"""Recipes beside the host's own objects: what a prompt is given, what a graph tells, and who waits for a hash."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.recipes import Recipe, recipe_document, recipe_text
from tandem_wan.wan.lora.stack import LoraStack, Row, parse_rows

pytestmark = pytest.mark.comfy
ROWS = '[{"lora": "a.safetensors", "high": 0.5, "low": 0.25}]'


@pytest.fixture
def places(comfy, tmp_path, monkeypatch):
    """Empty user, input and output folders of the host, and a loras folder with a.safetensors."""
    import folder_paths

    for kind in ("user", "input", "output"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    loras = tmp_path / "loras"
    loras.mkdir()
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "loras", ([str(loras)], {".safetensors"})
    )
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    save_file({"x": torch.ones(4)}, loras / "a.safetensors")
    return tmp_path


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def graph(rows=ROWS, **others):
    return {
        "1": node("UNETLoader", unet_name="m"),
        "2": node("TandemLoraStack", rows=rows),
        "3": node("TandemApplyStack", stack=["2", 0], model_high=["1", 0]),
        **others,
    }


def hidden(graph, entry_holder, unique_id="3"):
    return SimpleNamespace(unique_id=unique_id, prompt=graph, extra_pnginfo=entry_holder)


@pytest.fixture
def record(places):
    """The recorder with an empty book."""
    from tandem_wan.nodes.host import recipe_record

    fresh = recipe_record.RecipeBook()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(recipe_record, "book", fresh)
        yield recipe_record


def queued(record, graph, **extra_data):
    return record.open_entry({"prompt": graph, "extra_data": extra_data})["extra_data"][
        "extra_pnginfo"
    ]


def stack(rows=ROWS):
    return LoraStack(parse_rows(rows))


def test_a_prompt_gets_its_entry_beside_what_the_client_sent(record):
    workflow = {"nodes": []}
    info = queued(record, graph(), extra_pnginfo={"workflow": workflow})
    assert info["workflow"] is workflow and info["tandem"] == {"version": 1, "stacks": {}}
    record.record_stack(hidden(graph(), info), stack())
    document = recipe_document(record.recipe_here(stack()))
    assert info["tandem"]["stacks"] == {"3": document}
    assert json.loads(json.dumps(info))["tandem"] == copy.deepcopy(info)["tandem"]


def test_a_prompt_without_stacks_is_left_as_it_is(record):
    for sent in ({"prompt": {"1": node("UNETLoader")}}, {"prompt": None}, {}, {"prompt": {"1": 5}}):
        assert record.open_entry(dict(sent)) == sent


def test_what_is_cached_is_told_by_the_call_it_comes_from_earlier_or_later(record):
    waiting = queued(record, graph())
    ran = queued(record, graph())
    other = queued(record, graph(rows="[]"))
    record.record_stack(hidden(graph(), ran), stack())
    after = queued(record, {**graph(), "9": node("Other", seed=1)})
    for info in (waiting, ran, after):
        assert info["tandem"]["stacks"]["3"]["rows"][0]["high"] == 0.5
    assert other["tandem"]["stacks"] == {}


def test_entries_of_ended_prompts_are_not_kept_alive(record):
    info = queued(record, graph())
    assert len(record.book._open) == 1 and record.book._open[0][0]() is info["tandem"]
    del info
    gc.collect()
    queued(record, graph())
    gc.collect()
    assert [ref() for ref, _ in record.book._open] == [None]


def test_two_graphs_have_one_signature_only_if_all_above_the_stack_is_equal(record):
    from tandem_wan.nodes.host.graph_stacks import signature

    chained = graph()
    chained["2"]["inputs"]["stack"] = ["4", 0]
    chained["4"] = node("TandemLoraStack", rows="[]")
    renumbered = {"8": chained["2"] | {"inputs": {**chained["2"]["inputs"], "stack": ["9", 0]}}}
    renumbered["9"] = chained["4"]
    assert signature(chained, ("2", 0)) == signature(renumbered, ("8", 0))
    deeper = copy.deepcopy(chained)
    deeper["4"]["inputs"]["rows"] = ROWS
    signatures = {signature(g, ("2", 0)) for g in (graph(), chained, deeper)}
    assert len(signatures | {signature(chained, ("2", 1))}) == 4
    circle = graph()
    circle["2"]["inputs"]["stack"] = ["2", 0]
    assert queued(record, circle)["tandem"]["stacks"] == {}


def png(places, **entries):
    """A picture that was saved with these entries, in the output folder."""
    tags = PngImagePlugin.PngInfo()
    for key, value in entries.items():
        tags.add_text(key, json.dumps(value))
    Image.new("RGB", (2, 2)).save(places / "output" / "p.png", pnginfo=tags)
    return places / "output" / "p.png"


def test_the_stored_graph_tells_chained_stacks_and_loaded_ones_in_their_order(places):
    from tandem_wan.nodes.host.recipes import read_video_recipe, recipe_store

    recipe_store().save(Recipe(name="saved", rows=(Row(lora="s"),), triggers=("GLOW",)))
    pasted = recipe_text(Recipe(rows=(Row(lora="p"),)))
    chain = graph()
    chain["2"]["inputs"] |= {"stack": ["4", 0], "loras.0.lora_name": "flat"}
    chain["4"] = node("TandemLoadStack", name="saved", stack=["5", 0])
    chain["5"] = node("TandemSaveStack", name="x", stack=["6", 0])
    chain["6"] = node("TandemLoadStack", recipe=pasted, stack=["7", 0])
    chosen = "style = f\nspeed_high_noise = h\nspeed_low_noise = l"
    chain["7"] = node("TandemLoadStack", name="example: fast anime", files=chosen)
    told = read_video_recipe(png(places, prompt=chain))
    assert [row.lora for row in told.rows] == ["h", "f", "p", "s", "a.safetensors", "flat"]
    assert told.words() == ("GLOW",)


def test_the_entry_goes_before_the_graph_and_a_file_without_both_tells_nothing(places):
    from tandem_wan.nodes.host.recipes import read_video_recipe

    recipe = Recipe(name="", rows=(Row(lora="b", high=2.0),))
    entry = {"version": 1, "stacks": {"3": recipe_document(recipe)}}
    assert read_video_recipe(png(places, prompt=graph(), tandem=entry)) == recipe
    assert read_video_recipe(png(places, tandem=entry)) == recipe
    assert read_video_recipe(png(places, prompt={"1": node("UNETLoader")})) is None
    assert read_video_recipe(png(places)) is None
    packed = {"prompt": json.dumps(graph()), "tandem": entry}  # as Video Helper Suite writes it
    assert read_video_recipe(png(places, comment=packed)) == recipe
    assert read_video_recipe(png(places, comment={"prompt": json.dumps(graph())})).rows == (
        parse_rows(ROWS)
    )


def test_webp_pictures_of_the_host_tell_their_stack(places):
    from comfy_api.latest._ui import ImageSaveHelper
    from tandem_wan.nodes.host.recipes import read_video_recipe

    picture = Image.new("RGB", (2, 2))
    recipe = Recipe(rows=(Row(lora="w"),))
    info = {"workflow": {}, "tandem": {"version": 1, "stacks": {"3": recipe_document(recipe)}}}
    exif = ImageSaveHelper._create_webp_metadata(
        picture, SimpleNamespace(hidden=hidden(graph(), info))
    )
    picture.save(places / "output" / "p.webp", exif=exif)
    assert read_video_recipe(places / "output" / "p.webp") == recipe


def test_several_different_stacks_are_told_apart_by_their_node(places):
    from tandem_wan.nodes.host.recipes import read_video_recipe

    second = {
        "7": node("TandemLoraStack", rows='[{"lora": "z"}]'),
        "8": node("TandemApplyStack", stack=["7", 0]),
    }
    path = png(places, prompt=graph(**second))
    with pytest.raises(UserError, match=r"holds 2 stacks.*3 \(1 rows\), 8 \(1 rows\)"):
        read_video_recipe(path)
    assert read_video_recipe(path, "8").rows == (Row(lora="z"),)
    with pytest.raises(UserError, match="no stack of node '9'"):
        read_video_recipe(path, "9")
    equal = {"8": node("TandemApplyStack", stack=["2", 0])}
    assert read_video_recipe(png(places, prompt=graph(**equal))).rows == parse_rows(ROWS)


@pytest.mark.parametrize("kind", ["TandemJobResult", "Elsewhere"])
def test_a_stack_that_the_graph_cannot_tell_is_an_error_and_no_guess(places, kind):
    from tandem_wan.nodes.host.recipes import read_video_recipe

    unknown = graph()
    unknown["2"] = node(kind, job=["5", 0])
    with pytest.raises(UserError, match=f"node 2, which is a {kind}"):
        read_video_recipe(png(places, prompt=unknown))
    linked = graph(rows=["9", 0])
    with pytest.raises(UserError, match="node 2, which is a TandemLoraStack"):
        read_video_recipe(png(places, prompt=linked))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (None, "file is empty"),
        ("gone.mp4", "gone.mp4 is not there"),
        ("../../etc/passwd", "leaves its folder"),
        ("../x.png [output]", "leaves its folder"),
        ("text.mp4", "cannot be read"),
        ("text.png", "cannot be read"),
    ],
)
def test_a_file_that_is_no_saved_video_is_refused(places, name, said):
    from tandem_wan.nodes.host.media_files import media_path
    from tandem_wan.nodes.host.recipes import read_video_recipe

    for kind in ("mp4", "png"):
        (places / "input" / f"text.{kind}").write_text("no film")
    with pytest.raises(UserError, match=said):
        read_video_recipe(media_path(name))


@pytest.mark.parametrize("fault", ["long text", "many pixels"])
def test_a_png_that_pillow_refuses_is_named(places, fault, monkeypatch):
    path, info = places / "input" / "odd.png", PngImagePlugin.PngInfo()
    if fault == "long text":
        info.add_text("prompt", "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    Image.new("RGB", (64, 64)).save(path, pnginfo=info)
    if fault == "many pixels":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64)
    assert_unreadable(path)


@pytest.mark.parametrize("exif", [b"no TIFF header", b"II*\0"])
def test_a_webp_with_broken_exif_is_named(places, exif):
    path = places / "input" / "odd.webp"
    Image.new("RGB", (64, 64)).save(path, exif=exif)
    assert_unreadable(path)


def assert_unreadable(path):
    from tandem_wan.nodes.host.media_tags import media_entries

    with pytest.raises(UserError, match=r"odd\..* cannot be read .*ComfyUI saved.*Check the name"):
        media_entries(path)


def test_a_stack_is_recorded_where_nothing_can_be_remembered(places, record, caplog):
    """A file where the folder of the user's stacks should be refuses root as well."""
    (places / "user" / "default").write_text("")
    info = {}
    record.record_stack(hidden(graph(), info), stack())
    (note,) = info["tandem"]["stacks"]["3"]["files"]
    assert len(note["sha256"]) == 64
    assert "digests.json cannot be written" in caplog.text


def test_the_list_of_files_has_inputs_then_the_newest_outputs_but_none_of_runs(places):
    import os

    from tandem_wan.nodes.host.media_files import media_names, media_path

    made = ["input/b.png", "input/c.txt", "output/old.mp4", "output/video/new.mp4"]
    for number, name in enumerate([*made, "output/tandem/run/sample.mp4"]):
        path = places / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (number, number))
    (places / "output" / "broken.mp4").symlink_to("nowhere")
    assert media_names() == ["b.png", "video/new.mp4 [output]", "old.mp4 [output]"]
    for name in media_names():
        assert media_path(name).is_file()
    assert media_path("old.mp4") == places / "output" / "old.mp4"


def test_files_are_hashed_in_another_thread_than_the_servers(places, monkeypatch):
    from tandem_wan.nodes import recipes as nodes
    from tandem_wan.wan.lora import digests

    hashed, real = [], digests.file_sha256
    monkeypatch.setattr(
        digests,
        "file_sha256",
        lambda path: hashed.append(threading.get_ident()) or real(path),
    )
    note = {"name": "a.safetensors", "sha256": "0" * 64}
    note["size"] = (places / "loras" / "a.safetensors").stat().st_size
    text = json.dumps({"version": 1, "rows": json.loads(ROWS), "files": [note]})

    async def checked():
        return threading.get_ident(), await nodes.TandemLoadStack.validate_inputs(recipe=text)

    # In a thread of its own: the browser tests leave an event loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        server, verdict = thread.submit(asyncio.run, checked()).result()
    assert verdict is True and hashed and server not in hashed


def test_a_stack_that_is_saved_anew_is_loaded_anew(places):
    from tandem_wan.nodes.host.recipes import recipe_store
    from tandem_wan.nodes.recipes import TandemLoadStack, TandemSaveStack

    rows = parse_rows(ROWS)
    recipe_store().save(Recipe(name="s", rows=rows))
    prints = {TandemLoadStack.fingerprint_inputs(name="s")}
    assert TandemLoadStack.fingerprint_inputs(name="s") in prints
    recipe_store().save(Recipe(name="s", rows=rows, note="2"), overwrite=True)
    prints.add(TandemLoadStack.fingerprint_inputs(name="s"))
    save_file({"x": torch.ones(5)}, places / "loras" / "a.safetensors")
    prints.add(TandemLoadStack.fingerprint_inputs(name="s"))
    assert len(prints) == 3
    before = TandemSaveStack.fingerprint_inputs(name="s")
    recipe_store().delete("s")
    assert TandemSaveStack.fingerprint_inputs(name="s") != before
