"""The node that shows what a text encoder's tokenizer makes of a trigger."""

from __future__ import annotations

import comfy.sd
import torch
from comfy_api.latest import io, ui

from ..training.data.dataset import TRIGGER_SLOT, Dataset
from ..wan.errors import UserError
from ..wan.trigger_check import SENTENCE, check_trigger
from ..wan.trigger_suggestions import suggest_triggers
from . import sockets
from .host.progress import node_text
from .host.tokens import ClipTokens
from .trigger_picture import trigger_picture

NOT_THERE = object()


class TandemTriggerCheck(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemTriggerCheck",
            display_name="Tandem Trigger Check",
            category="Tandem/dataset",
            description="Shows the pieces that the text encoder's own tokenizer makes of a trigger word, whether it is "
            "a common word, what it collides with in the vocabulary and in the captions, and better words made from "
            "it. Nothing is encoded or changed.",
            search_aliases=["trigger word", "tokenizer", "token count", "trigger suggestions"],
            inputs=[
                io.String.Input(
                    "trigger",
                    default="",
                    optional=True,
                    tooltip="The word to look at, for example MERMAID; empty takes the dataset's.",
                ),
                io.Clip.Input(
                    "clip",
                    tooltip="The text encoder of the run, for example umt5_xxl loaded with type wan.",
                ),
                sockets.Dataset.Input(
                    "dataset",
                    optional=True,
                    tooltip="Its trigger is taken when trigger is empty, and its captions are searched for the same "
                    "word in another meaning. From Tandem Dataset or Tandem Caption Template.",
                ),
                io.String.Input(
                    "sentence",
                    default="",
                    optional=True,
                    tooltip="The sentence in which the trigger is cut, for example: A woman turns into a {trigger}. "
                    "Empty takes one of ours.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report"),
                io.Image.Output(display_name="picture"),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, trigger: str | None = "", dataset: object = NOT_THERE, sentence: str | None = ""
    ) -> bool | str:
        # A dataset that is connected arrives as None; without one there must be a trigger.
        waits = trigger is None or dataset is not NOT_THERE
        return sockets.first_error(
            lambda: waits or _trigger(trigger or "", None),
            lambda: sentence is None or _sentence(sentence),
        )

    @classmethod
    def execute(
        cls,
        clip: comfy.sd.CLIP,
        trigger: str = "",
        dataset: Dataset | None = None,
        sentence: str = "",
    ) -> io.NodeOutput:
        tokens = ClipTokens(clip)
        clips = dataset.clips if dataset else ()
        # Each file's caption once, however many clips it has; regularisation has its words as ordinary ones.
        captions = list({c.path: c.caption for c in clips if not c.regularisation}.values())
        where = _sentence(sentence)
        check = check_trigger(
            _trigger(trigger, dataset),
            tokens.pieces,
            sentence=where,
            vocabulary=tokens.vocabulary,
            captions=captions,
        )
        better = suggest_triggers(
            check, tokens.pieces, sentence=where, vocabulary=tokens.vocabulary, captions=captions
        )
        fix = check.fix(better)
        text = f"{check.verdict.upper()}: {check.text()}" + (f"\n-> {fix}" if fix else "")
        node_text(cls.hidden.unique_id, text)
        picture = torch.from_numpy(trigger_picture(check, better)).float()[None] / 255
        return io.NodeOutput(text, picture, ui=ui.PreviewImage(picture, cls=cls))


def _trigger(trigger: str, dataset: Dataset | None) -> str:
    found = trigger.strip() or (dataset.trigger.strip() if dataset else "")
    if not found:
        raise UserError(
            "There is no trigger: trigger is empty, and no dataset brings one.",
            "A trigger is a short plain word, for example MERMAID.",
            "Write one, or connect a dataset whose trigger is set.",
        )
    return found


def _sentence(sentence: str) -> str:
    """The sentence as the library takes it, with `{}` where the trigger comes."""
    if not sentence.strip():
        return SENTENCE
    if sentence.count(TRIGGER_SLOT) != 1 or "{}" in sentence:
        raise UserError(
            f"The sentence {sentence!r} does not have {TRIGGER_SLOT} exactly once.",
            "It is a caption or prompt, for example: A woman turns into a {trigger}.",
            f"Write {TRIGGER_SLOT} where the trigger stands, or leave sentence empty.",
        )
    return sentence.strip().replace(TRIGGER_SLOT, "{}")
