"""The node that samples scenes, each with its own LoRA stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..wan.families import AUTO
from ..wan.lora.judge import Policy
from ..wan.lora.stack import LoraStack
from ..wan.shapes import checked_clip_size
from . import sampling_inputs as inputs
from . import sockets
from .host.progress import node_text
from .host.scenes import (
    CONTINUATIONS,
    Continuation,
    Settings,
    Studio,
    checked_scenes,
    sample_scenes,
    scenes_fingerprint,
)
from .host.setup import models_by_role

if TYPE_CHECKING:
    import torch
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

DEFAULT_SCENES = """[
  {"prompt": "A woman walks along a beach.", "rows": []},
  {"prompt": "She turns around and waves.", "rows": []}
]"""


class TandemScenes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemScenes",
            display_name="Tandem Scenes",
            category="Tandem/sampling",
            description="Prompts with a LoRA stack each, sampled one after the other on one copy of the models. A "
            "scene can begin with the last frame of the one before. High noise runs first (motion, layout), low noise "
            "second (detail). Equal stacks are loaded once; a missing file is refused when the prompt is queued.",
            search_aliases=["scenes", "prompt list", "storyboard", "continue video", "long video"],
            inputs=_inputs(),
            outputs=[
                io.Image.Output(display_name="images"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        scenes: str | None = DEFAULT_SCENES,
        width: int | None = 832,
        height: int | None = 480,
        frames: int | None = 81,
    ) -> bool | str:
        # What comes over a link is None here, and checked when the node runs.
        return sockets.first_error(
            lambda: scenes is None or checked_scenes(scenes),
            lambda: checked_clip_size(width or 832, height or 480, frames or 81),
        )

    @classmethod
    def fingerprint_inputs(cls, scenes: str | None = DEFAULT_SCENES, **_: object) -> str:
        return scenes_fingerprint(scenes)

    @classmethod
    def execute(
        cls,
        model_high: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        scenes: str = DEFAULT_SCENES,
        negative: str = "",
        width: int = 832,
        height: int = 480,
        frames: int = 81,
        steps: int = 20,
        cfg: float = 3.5,
        shift: float = 0.0,
        sampler_name: str = "euler",
        scheduler: str = "simple",
        seed: int = 0,
        continue_from: Continuation = "own image",
        unmatched: Policy = "error",
        model_low: ModelPatcher | None = None,
        start_image: torch.Tensor | None = None,
        stack: LoraStack | None = None,
    ) -> io.NodeOutput:
        size = checked_clip_size(width, height, frames)
        studio = Studio(
            models=models_by_role(AUTO, model_high, model_low),
            clip=clip,
            vae=vae,
            pictures=start_image,
            stack=stack or LoraStack(),
        )
        settings = Settings(
            **size._asdict(),
            negative=negative,
            steps=steps,
            cfg=cfg,
            shift=shift,
            sampler_name=sampler_name,
            scheduler=scheduler,
            seed=seed,
            continue_from=continue_from,
            unmatched=unmatched,
        )
        node_id = cls.hidden.unique_id
        images, report = sample_scenes(
            checked_scenes(scenes), studio, settings, lambda text: node_text(node_id, text)
        )
        node_text(node_id, report)
        return io.NodeOutput(images, report)


def _inputs() -> list[io.Input]:
    return [
        io.Model.Input("model_high", tooltip=sockets.HIGH_TIP),
        io.Clip.Input(
            "clip",
            tooltip="The text encoder; all prompts are read at once, before the first scene.",
        ),
        io.Vae.Input("vae", tooltip="The Wan 2.1 VAE, which Wan 2.2 A14B uses too."),
        io.String.Input(
            "scenes",
            default=DEFAULT_SCENES,
            multiline=True,
            optional=True,
            tooltip='A JSON list: [{"prompt": "...", "rows": [{"lora": "x.safetensors", "high": 1.0}], "seed": 1, '
            '"frames": 81}]. Only prompt must be there; rows are those of Tandem LoRA Stack.',
        ),
        io.String.Input(
            "negative",
            default="",
            multiline=True,
            optional=True,
            tooltip="What no scene is to show. For example blurry, still, low quality.",
        ),
        *_size_inputs(),
        *_schedule_inputs(),
        *_noise_inputs(),
        *_stack_inputs(),
    ]


def _stack_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "continue_from",
            options=list(CONTINUATIONS),
            default=CONTINUATIONS[0],
            optional=True,
            tooltip="own image: scene 2 begins with picture 2 of start_image (or its last one). last frame: it begins "
            "with the last frame of scene 1, and that frame is shown once.",
        ),
        sockets.unmatched_input(),
        io.Model.Input("model_low", optional=True, tooltip=sockets.LOW_TIP),
        io.Image.Input(
            "start_image",
            optional=True,
            tooltip="First frames for an image-to-video model: one picture for all scenes, or a batch with one for "
            "each.",
        ),
        sockets.Stack.Input(
            "stack",
            optional=True,
            tooltip="LoRAs of every scene, before its own rows; for example a speed pair.",
        ),
    ]


def _size_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "width",
            default=832,
            min=16,
            max=16_384,
            step=16,
            optional=True,
            tooltip="Pixels, a multiple of 16. For example 832.",
        ),
        io.Int.Input(
            "height",
            default=480,
            min=16,
            max=16_384,
            step=16,
            optional=True,
            tooltip="Pixels, a multiple of 16. For example 480.",
        ),
        io.Int.Input(
            "frames",
            default=81,
            min=1,
            max=10_000,
            step=4,
            optional=True,
            tooltip="Frames of a scene, 4k+1, at 16 a second. 81 is 5 seconds; a scene may have its own.",
        ),
    ]


def _schedule_inputs() -> list[io.Input]:
    return [
        inputs.steps_input(),
        inputs.cfg_input(),
        inputs.shift_input(),
    ]


def _noise_inputs() -> list[io.Input]:
    return [
        inputs.sampler_input(),
        inputs.scheduler_input(),
        inputs.seed_input(
            "Noise of the first scene; each later one takes the next number unless it has its own. For "
            "example 0."
        ),
    ]
