"""The node that judges a dataset's captions and its trigger."""

from __future__ import annotations

import comfy.sd
import torch
from comfy_api.latest import io, ui

from ..training.captions.findings import Finding, token_finding, trigger_token_finding
from ..training.captions.report import CaptionReport, caption_report
from ..training.data.dataset import Dataset
from ..wan.trigger_check import check_trigger
from ..wan.trigger_suggestions import suggest_triggers
from . import sockets
from .caption_plot import caption_plot
from .host.progress import node_text
from .host.tokens import ClipTokens


class TandemCaptionReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemCaptionReport",
            display_name="Tandem Caption Report",
            category="Tandem/dataset",
            description="Judges the captions of a dataset: length, sentence shapes, the trigger and where it stands, "
            "what is missing or left over, with a fix for each finding. With a text encoder it shows the pieces "
            "that the real tokenizer makes of the trigger. It changes nothing.",
            search_aliases=["check captions", "trigger check", "caption statistics", "token count"],
            inputs=[
                sockets.Dataset.Input(
                    "dataset", tooltip="The clips whose captions are judged; the trigger is theirs."
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The text encoder of the run, for example umt5_xxl: its tokenizer cuts the trigger and "
                    "counts tokens. No text is encoded.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report"),
                io.Image.Output(display_name="plot"),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, dataset: Dataset, clip: comfy.sd.CLIP | None = None) -> io.NodeOutput:
        report = caption_report(dataset)
        counts = None
        if clip is not None:
            tokens = ClipTokens(clip)
            counts = [tokens.count(caption) for caption in report.captions]
            if counts:
                report = report.with_findings(token_finding(counts, tokens.limit))
            if report.trigger:
                report = report.with_trigger_tokens(_trigger_finding(report, tokens))
        text = report.text()
        node_text(cls.hidden.unique_id, text)
        plot = torch.from_numpy(caption_plot(report, tokens=counts)).float()[None] / 255
        return io.NodeOutput(text, plot, ui=ui.PreviewImage(plot, cls=cls))


def _trigger_finding(report: CaptionReport, tokens: ClipTokens) -> Finding:
    cut, known, captions = tokens.pieces, tokens.vocabulary, report.captions
    check = check_trigger(report.trigger, cut, vocabulary=known, captions=captions)
    better = suggest_triggers(check, cut, vocabulary=known, captions=captions)
    return trigger_token_finding(check, better)
