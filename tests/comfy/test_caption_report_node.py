"""The node that judges captions: report, plot, and the tokenizer of the host's CLIP."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece
from PIL import ImageColor

pytestmark = pytest.mark.comfy
CAPTION = "A woman turns slowly into a MERMAID while the camera stands still."


def dataset(captions, trigger="MERMAID"):
    from tandem_wan.training.data.dataset import Clip, Dataset
    from tandem_wan.wan.shapes import ClipSize

    clips = tuple(
        Clip(path=Path(f"clip_{n}.mp4"), caption=text, frames=17, digest="")
        for n, text in enumerate(captions)
    )
    size = ClipSize(64, 64, 17)
    return Dataset(folder=Path("clips"), clips=clips, size=size, fps=16.0, trigger=trigger)


def test_alike_captions_are_good_without_a_text_encoder(node):
    report, plot = node.execute(dataset([CAPTION] * 6)).result
    assert report.startswith("GOOD, 100 of 100")
    assert "tokens" not in report
    assert plot.shape[0] == 1 and plot.shape[-1] == 3


def test_with_a_text_encoder_the_pieces_are_those_of_its_own_sentencepiece_model(
    node, clip, pieces
):
    from tandem_wan.nodes.host.tokens import ClipTokens

    tokens = ClipTokens(clip)
    for text in (CAPTION, "", "a [m3rm41d] swims"):
        assert tokens.pieces(text) == pieces.encode(text, out_type=str)
        assert tokens.count(text) == len(pieces.encode(text)) + 1
    report, _ = node.execute(dataset([CAPTION] * 6), clip).result
    assert f"{tokens.count(CAPTION)}-{tokens.count(CAPTION)} tokens a caption" in report
    assert "The tokenizer makes" in report and "of MERMAID" in report


def test_a_caption_longer_than_the_encoder_is_made_for_is_bad(node, clip):
    from tandem_wan.nodes.host.tokens import ClipTokens

    limit = ClipTokens(clip).limit
    report, _ = node.execute(dataset(["swim " * limit]), clip).result
    assert f"of {limit}: 1 is over it" in report


def test_the_limit_of_the_hosts_own_umt5_is_512(comfy, clip):
    import comfy.text_encoders.wan as host_wan
    from tandem_wan.nodes.host.tokens import ClipTokens

    model = clip.tokenizer.state_dict()["spiece_model"]
    tokenizer = host_wan.WanT5Tokenizer(tokenizer_data={"spiece_model": model})
    assert ClipTokens(SimpleNamespace(tokenizer=tokenizer)).limit == 512


def test_another_kind_of_text_encoder_is_refused(node, comfy):
    from comfy.sd1_clip import SD1Tokenizer

    other = SimpleNamespace(tokenizer=SD1Tokenizer())
    with pytest.raises(ValueError, match="The tokenizer of clip is a SD1Tokenizer"):
        node.execute(dataset([CAPTION]), other)


def test_a_longer_caption_has_a_higher_bar_and_the_trigger_its_dot_at_its_word(comfy):
    from tandem_wan.nodes.caption_plot import TRIGGER, WORDS, caption_plot
    from tandem_wan.training.captions.report import caption_report

    short, long = "MERMAID swims here", "the " * 17 + "MERMAID swims here"
    picture = caption_plot(caption_report(dataset([short, long])))
    rows, columns = _pixels(picture, WORDS)
    middle = picture.shape[1] // 2
    assert rows[columns < middle].min() > rows[columns > middle].min() + 100, "rows count downwards"
    dots, at = _pixels(picture, TRIGGER)
    assert dots[at < middle].mean() > dots[at > middle].mean() + 100


def _pixels(picture, colour):
    wanted = np.array(ImageColor.getrgb(colour))
    found = (np.abs(picture.astype(int) - wanted) <= 2).all(axis=2)
    # The legend stands above the axes.
    found[:40] = False
    return np.nonzero(found)


@pytest.fixture
def pieces(clip):
    model = clip.tokenizer.state_dict()["spiece_model"].numpy().tobytes()
    return sentencepiece.SentencePieceProcessor(model_proto=model)


@pytest.fixture
def node(monkeypatch, tmp_path):
    import folder_paths
    from tandem_wan.nodes import caption_report

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    return caption_report.TandemCaptionReport.PREPARE_CLASS_CLONE(None)


def test_tokens_have_an_axis_of_their_own(comfy):
    from tandem_wan.nodes.caption_plot import WORDS, caption_plot
    from tandem_wan.training.captions.report import caption_report

    report = caption_report(dataset([CAPTION] * 6))
    plain, _ = _pixels(caption_plot(report), WORDS)
    outlier, _ = _pixels(caption_plot(report, tokens=[12, 12, 512, 12, 12, 12]), WORDS)
    assert outlier.min() == plain.min()


def test_the_band_is_what_is_judged_good(comfy):
    from tandem_wan.nodes.caption_plot import WORDS, caption_plot
    from tandem_wan.training.captions.report import caption_report

    report = caption_report(dataset(["swim " * 11, "swim " * 24], trigger=""))
    picture = caption_plot(report)
    words, at = _pixels(picture, WORDS)
    rows, columns = _pixels(picture, "#dddddd")
    # Left of the first bar, where nothing hides the band.
    band = rows[(columns > at.min() - 9) & (columns < at.min() - 2)]
    top = words[at < picture.shape[1] // 2].min()
    assert band.min() < top < band.max(), "11 words are good: the bar ends in the band"


def test_bars_have_the_names_of_their_clips(comfy):
    from tandem_wan.nodes.caption_plot import NAME_LETTERS, _label, _without_suffix

    names = ["one/x.mp4", "x.y.mp4@81", "a.mp4", "a.png"]
    assert _without_suffix(names) == ["one/x", "x.y@81", "a.mp4", "a.png"]
    assert _label("clip_0", 1) == "clip_0" and _label("鱼", 7) == "7"
    long = _label("a very long name of a film 27", 1)
    assert len(long) <= NAME_LETTERS and long.startswith("a very") and long.endswith("27")


@pytest.mark.filterwarnings("error")
def test_any_name_can_be_drawn(comfy):
    from dataclasses import replace

    from tandem_wan.nodes.caption_plot import caption_plot
    from tandem_wan.training.captions.report import caption_report

    report = caption_report(dataset([CAPTION] * 4))
    names = ("$x$_{", "鱼.mp4", "a\udcffb.mp4", "tab\t.mp4")
    assert caption_plot(replace(report, names=names)).shape == (480, 900, 3)
