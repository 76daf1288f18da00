"""The node that looks at a trigger: the tokenizer is that of a text encoder which the host has loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tandem_wan.dev.toy_tokenizer import trained_pieces

pytestmark = pytest.mark.comfy


@pytest.fixture(scope="module")
def pieces():
    return trained_pieces(450, byte_fallback=True, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)


@pytest.fixture(scope="module")
def encoder(comfy, pieces, tmp_path_factory):
    """A text encoder with that tokenizer, loaded in the host."""
    from tandem_wan.nodes.host.text_encoder import load_text_encoder
    from tandem_wan.wan.lora.files import write_safetensors
    from tandem_wan.wan.miniature.layouts import TextEncoderSize, text_encoder_layout
    from tandem_wan.wan.miniature.random_family import random_tensors
    from tandem_wan.wan.text_encoder import METADATA_KEY

    size = replace(TextEncoderSize(), vocabulary=pieces.get_piece_size())
    tensors = random_tensors(text_encoder_layout(size), torch.Generator().manual_seed(0))
    proto = bytearray(pieces.serialized_model_proto())
    tensors["spiece_model"] = torch.frombuffer(proto, dtype=torch.uint8)
    path = tmp_path_factory.mktemp("encoder") / "umt5.safetensors"
    write_safetensors(path, tensors, {METADATA_KEY: json.dumps({"tokens": size.tokens})})
    with torch.inference_mode():
        return load_text_encoder(path)


@pytest.fixture
def node(comfy, monkeypatch, tmp_path):
    import folder_paths
    from tandem_wan.nodes.trigger_check import TandemTriggerCheck

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    return TandemTriggerCheck.PREPARE_CLASS_CLONE(None)


def dataset(captions, trigger=""):
    from tandem_wan.training.data.dataset import Clip, Dataset
    from tandem_wan.wan.shapes import ClipSize

    clips = tuple(
        Clip(path=Path(f"clip_{n}.mp4"), caption=text, frames=17, digest="")
        for n, text in enumerate(captions)
    )
    return Dataset(
        folder=Path("clips"), clips=clips, size=ClipSize(64, 64, 17), fps=16.0, trigger=trigger
    )


@pytest.mark.parametrize(
    ("trigger", "begins", "said"),
    [
        ("[m3rm41dtr4nf0rm4t10n]", "BAD", "digits between letters and brackets"),
        ("MERMAID", "GOOD", "1 piece in a sentence (▁MERMAID)"),
        ("MERMAIDTF", "GOOD", "3 pieces in a sentence (▁MERMAID | T | F)"),
        ("MERMAIDTFX", "WARNING", "4 pieces in a sentence (▁MERMAID | T | F | X)"),
        ("person", "WARNING", "a common word, number"),
    ],
)
def test_the_verdict_is_that_of_the_encoders_own_tokenizer(
    node, encoder, pieces, trigger, begins, said
):
    report, picture = node.execute(encoder, trigger).result
    assert report.startswith(begins) and said in report
    whole = pieces.encode(
        f"A person turns into a {trigger} while the camera stands still.", out_type=str
    )
    shown = report.split("(")[1].split(")")[0].split(" | ")
    assert " ".join(shown) in " ".join(whole)
    assert picture.shape[0] == 1 and picture.shape[2:] == (900, 3)
    assert (picture.min() >= 0) and (picture.max() <= 1)


def test_what_is_better_was_cut_by_the_same_tokenizer(node, encoder):
    report, _ = node.execute(encoder, "[m3rm41dtr4nf0rm4t10n]").result
    assert "Better with this tokenizer: MERMAID (1 piece, good)" in report
    good, _ = node.execute(encoder, "MERMAID").result
    assert "Better" not in good and "->" not in good


def test_the_tokenizer_of_the_hosts_tiny_encoder_works_too(node, clip):
    report, _ = node.execute(clip, "[m3rm41dtr4nf0rm4t10n]").result
    assert report.startswith("BAD")


def test_the_dataset_brings_the_trigger_and_the_captions_that_it_collides_with(node, encoder):
    from tandem_wan.training.data.dataset import Dataset

    alike = dataset(["A person turns into a MERMAID."] * 3, "MERMAID")
    assert node.execute(encoder, dataset=alike).result[0].startswith("GOOD")
    mixed: Dataset = dataset(["A MERMAID swims.", "Two mermaids swim."], "MERMAID")
    report, _ = node.execute(encoder, dataset=mixed).result
    assert report.startswith("WARNING") and "captions also have mermaids (1)" in report
    other = replace(mixed.clips[1], regularisation=True)
    report, _ = node.execute(encoder, dataset=replace(mixed, clips=(mixed.clips[0], other))).result
    assert report.startswith("GOOD")
    report, _ = node.execute(encoder, "person", dataset=mixed).result
    assert "of person" in report


def test_the_sentence_is_the_users_own(node, encoder):
    from tandem_wan.nodes.host.tokens import ClipTokens

    sentence = "the {trigger}. walks"
    _, ours = node.execute(encoder, "MERMAID").result
    report, theirs = node.execute(encoder, "MERMAID", sentence=sentence).result
    assert "1 piece in a sentence" in report
    assert ours.shape != theirs.shape or not torch.equal(ours, theirs)
    assert "▁MERMAID" in ClipTokens(encoder).pieces("the MERMAID. walks")


def test_without_a_trigger_the_queue_refuses(node, encoder):
    said = node.validate_inputs(trigger=" ")
    assert "There is no trigger" in said and "MERMAID" in said and "connect a dataset" in said
    assert "does not have {trigger} exactly once" in node.validate_inputs("X", sentence="no slot")
    # What is connected arrives as None, and is looked at when it is there.
    assert node.validate_inputs(trigger="", dataset=None) is True
    assert node.validate_inputs(trigger=None, sentence=None) is True
    with pytest.raises(ValueError, match="There is no trigger"):
        node.execute(encoder, dataset=dataset(["x"]))


def test_the_vocabulary_is_made_once_for_a_tokenizer(encoder):
    from tandem_wan.nodes.host.tokens import ClipTokens

    assert ClipTokens(encoder).vocabulary is ClipTokens(encoder).vocabulary


@pytest.mark.parametrize(
    "trigger",
    [
        "鱼",
        "mer鱼maid",
        "\U0001f9dc",
        "e\u0301",
        "a\tb",
        "x" * 300,
        "\u202eabc",
        "glow worm",
        "$x$",
    ],
)
def test_any_trigger_can_be_drawn(node, encoder, trigger):
    report, picture = node.execute(encoder, trigger).result
    assert report and picture.shape[2] == 900 and picture.shape[1] < 2000


def test_the_triggers_pieces_are_coloured_and_the_others_grey(comfy):
    from tandem_wan.nodes.trigger_picture import _hue, trigger_picture
    from tandem_wan.wan.trigger_check import check_trigger

    def words(text):
        return [f"▁{word}" for word in text.split()]

    one = _colours(trigger_picture(check_trigger("X", words)))
    two = _colours(trigger_picture(check_trigger("X Y", words)))
    assert {_hue(0)} <= one and _hue(1) not in one
    assert {_hue(0), _hue(1), "#eeeeee"} <= two


def test_what_the_font_cannot_draw_is_written_as_its_number(comfy):
    from tandem_wan.nodes.trigger_picture import glyphs

    assert glyphs("aé鱼\t") == "aé\\u9c7c\\u0009"


def _colours(picture):
    values, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    return {f"#{bytes(v).hex()}" for v, n in zip(values, counts, strict=True) if n > 100}


def test_the_run_that_failed_scores_0_and_its_good_twin_100(comfy, encoder, monkeypatch, tmp_path):
    """Captions of 65-115 words in many shapes under a cut-up trigger, and one template under MERMAID."""
    import random

    import folder_paths
    from tandem_wan.nodes.caption_report import TandemCaptionReport

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    report = TandemCaptionReport.PREPARE_CLASS_CLONE(None)
    chooser = random.Random(0)
    long = [
        " ".join(chooser.sample([f"word{n}" for n in range(400)], chooser.randint(65, 115)))
        for _ in range(12)
    ]
    cut_up = "[m3rm41dtr4nf0rm4t10n]"
    failed, _ = report.execute(dataset([*long, f"{long[0]} {cut_up}"], cut_up), encoder).result
    assert failed.startswith("BAD, 0 of 100")
    assert int(failed.split(" pieces in a sentence")[0].split()[-1]) > 15
    assert "Better with this tokenizer: MERMAID (1 piece, good)" in failed
    twin = ["A person turns slowly into a MERMAID while the camera stands still."] * 12
    good, _ = report.execute(dataset(twin, "MERMAID"), encoder).result
    assert good.startswith("GOOD, 100 of 100"), good
    twin[3] = "A person turns slowly into a mermaid while the camera stands still."
    report_text, _ = report.execute(dataset(twin, "MERMAID"), encoder).result
    assert "captions also have mermaid (1)" in report_text
