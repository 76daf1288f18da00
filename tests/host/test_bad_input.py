"""Bad input: a message that names the thing, what was expected and what to do, as early as can be."""

from __future__ import annotations

import shutil

import pytest
from tandem_wan.dev.errors import PromptFailed, QueueRefused
from tandem_wan.dev.testing import number_of, text_of, tiny_files, workflow

pytestmark = [pytest.mark.host]
DATASET, TRAINER = "Clips to learn from", "Train both experts"
HIGH, LOW = "High-noise expert: runs first", "Low-noise expert: runs second"


@pytest.mark.parametrize(
    ("title", "inputs", "message"),
    [
        (DATASET, {"folder": "no_such_folder"}, r"no_such_folder is not there\..*input folder.*Check the spelling"),
        (DATASET, {"folder": "empty"}, r"empty holds no video files\..*Put clips"),
        (DATASET, {"folder": ""}, r"folder is empty\..*my_clips"),
        (DATASET, {"folder": "../../outside"}, r"leaves the input folder\..*full path"),
        (DATASET, {"frames": 80}, r"frames is 80\..*4k\+1.*Use 77 or 81"),
        (DATASET, {"width": 100}, r"width is 100 pixels\..*multiples of 16.*Use 96 or 112"),
        (DATASET, {"media": "sound"}, r"media is 'sound'\..*auto, video, image"),
        ("Captions, all alike", {"templates": "  "}, r"no caption template.*Write at least one"),
        ("Captions, all alike", {"slots": "person woman"}, r"slot line 'person woman'.*person = woman \| man"),
        (TRAINER, {"name": "../../../escape"}, r"'../../../escape'\..*letters, digits.*Choose a plain name"),
        (TRAINER, {"mode": "sideways"}, r"sideways.*background.*wait"),
    ],
)  # fmt: skip
def test_what_can_be_known_is_refused_when_the_prompt_is_queued(client, title, inputs, message):
    _refused(client, workflow("train_and_sample", {title: inputs}), title, message)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('[{"lora": "gone.safetensors"}]', r"'gone.safetensors' is not in a loras folder\..*Check the spelling"),
        ('[{"lora": "truncated.safetensors"}]', r"truncated.safetensors cannot be read.*truncated or not"),
        ('[{"lora": "truncated.safetensors", "strenght": 1}]', r"Row 1 has strenght\..*A row can have.*spelling"),
        ('[{"lora": "truncated.safetensors", "route": "up"}]', r"Row 1: route is 'up'\..*auto, both, high, low"),
        ('[{"lora": "truncated.safetensors", "high": "1"}]', r"Row 1: high is '1'\..*a number"),
        ("[{", r"rows is not JSON.*For example"),
        ('{"lora": "x"}', r"rows is a dict.*list of rows"),
        ('[{"lora": "../../../etc/passwd.safetensors"}]', r"is not in a loras folder"),
    ],
)  # fmt: skip
def test_a_bad_row_is_refused_when_the_prompt_is_queued(client, rows, message):
    graph = workflow("image_to_video", {"The stack": {"rows": rows}})
    tiny_files(graph)
    _refused(client, graph, "The stack", message)


def test_a_clip_that_cannot_be_decoded_is_named_skipped_and_counted(client, base):
    folder = base / "input" / "with_broken"
    shutil.copytree(base / "input" / "clips", folder)
    (folder / "broken.mp4").write_bytes(b"this is no video" * 100)
    whole = min(folder.glob("0*.mp4"))
    (folder / "cut_off.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    graph = workflow("train_and_sample", {DATASET: {"folder": "with_broken"}})
    graph = {number_of(graph, DATASET): graph[number_of(graph, DATASET)]}
    graph["show"] = {
        "class_type": "PreviewAny",
        "inputs": {"source": [number_of(graph, DATASET), 1]},
        "_meta": {"title": "show"},
    }
    report = text_of(graph, client.run(graph), "show")
    assert report.startswith("3 of 5 files in with_broken")
    assert "Skipped broken.mp4: broken.mp4 cannot be decoded" in report
    assert "Skipped cut_off.mp4" in report


def test_a_folder_of_nothing_but_broken_clips_is_an_error(client, base):
    folder = base / "input" / "only_broken"
    folder.mkdir()
    (folder / "broken.mp4").write_bytes(b"this is no video")
    _fails(
        client,
        {DATASET: {"folder": "only_broken"}},
        r"None of the 1 files.*broken.mp4 cannot be decoded",
    )


def test_clips_that_are_too_short_are_an_error_that_gives_both_numbers(client):
    _fails(client, {DATASET: {"frames": 81}}, r"gives 9 frames at 16 fps\. The dataset asks for 81")


def test_a_placeholder_without_a_trigger_is_an_error(client):
    _fails(
        client, {DATASET: {"trigger": ""}}, r"contains \{trigger\}, but no trigger is set.*MERMAID"
    )


def test_a_model_that_is_not_wan_is_named(client):
    _fails(
        client,
        {HIGH: {"unet_name": "not_wan.safetensors"}},
        r"model_high is a LTXV model\..*Wan 2\.1 or 2\.2",
    )


def test_experts_of_different_shape_are_named_with_a_layer(client):
    changes = {LOW: {"unet_name": "other_low_noise.safetensors"}}
    _fails(
        client,
        changes,
        r"differ in shape: blocks\.0\.ffn\.0\.weight is \(256, 128\) in one, \(512, 128\)",
    )


def test_the_same_file_as_both_experts_is_an_error(client):
    changes = {LOW: {"unet_name": "tiny_wan2.2_i2v_high_noise.safetensors"}}
    _fails(client, changes, r"hold the same weights\..*two files.*Load the other")


def test_a_vae_of_another_family_is_named(client):
    changes = {"VAE": {"vae_name": "pixel_space"}}
    _fails(client, changes, r"VAE is a PixelspaceConversionVAE.*16 latent channels.*wan_2\.1_vae")


def test_no_model_at_all_says_what_to_connect(client):
    graph = workflow("train_and_sample")
    inputs = graph[number_of(graph, TRAINER)]["inputs"]
    del inputs["model_high"], inputs["model_low"]
    with pytest.raises(PromptFailed, match=r"Neither model_high nor model_low is connected"):
        client.run(graph)


def _refused(client, graph, title, message):
    import re

    with pytest.raises(QueueRefused) as caught:
        client.queue(graph)
    errors = caught.value.node_errors[number_of(graph, title)]["errors"]
    said = " ".join(f"{e['message']} {e['details']}" for e in errors)
    assert re.search(message, said, re.DOTALL), said
    assert "Exception when validating" not in said


def _fails(client, changes, message):
    import re

    with pytest.raises(PromptFailed) as caught:
        client.run(workflow("train_and_sample", changes))
    assert caught.value.exception_type.endswith("UserError")
    assert re.search(message, caught.value.message, re.DOTALL), caught.value.message
