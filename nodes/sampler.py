"""The node that samples with two experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from . import sampling_inputs as inputs
from . import sockets
from .host.progress import node_text
from .host.sampling import Request, make_schedule, sample_pair, with_shift
from .host.wan_models import require_pair, require_wan

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

Conditioning = list[list[Any]]


class TandemDualSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemDualSampler",
            display_name="Tandem Dual Sampler",
            category="Tandem/sampling",
            description="Samples with both experts of Wan 2.2 on one noise schedule: steps that start at or above the "
            "boundary are the high-noise expert's (first: motion, layout), the rest the low-noise one's (detail). With "
            "one model it is a plain sampler.",
            search_aliases=["ksampler", "wan 2.2 sampler", "moe sampler", "two stage sampler"],
            inputs=[
                io.Model.Input("model_high", tooltip=sockets.HIGH_TIP),
                io.Conditioning.Input(
                    "positive", tooltip="What the clip is to show; put the trigger in."
                ),
                io.Conditioning.Input("negative", tooltip="What it is not to show."),
                io.Latent.Input("latent", tooltip="From Wan Image To Video, for example."),
                inputs.seed_input(
                    "Which noise the clip starts from; the same number gives the same clip. For example 0."
                ),
                inputs.steps_input(),
                inputs.cfg_input(),
                io.Float.Input(
                    "cfg_low",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    optional=True,
                    tooltip="Guidance of the low-noise expert; 0 takes cfg.",
                ),
                inputs.sampler_input(),
                inputs.scheduler_input(),
                inputs.shift_input(),
                io.Float.Input(
                    "boundary",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    optional=True,
                    tooltip="Sigma at which the low-noise expert takes over; 0 takes the model's: 0.9 image-to-video, "
                    "0.875 text-to-video.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Share of the schedule that is run; 1.0 starts from pure noise.",
                ),
                io.Model.Input("model_low", optional=True, tooltip=sockets.LOW_TIP),
            ],
            outputs=[
                io.Latent.Output(display_name="latent"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model_high: ModelPatcher,
        positive: Conditioning,
        negative: Conditioning,
        latent: Mapping[str, Any],
        seed: int = 0,
        steps: int = 20,
        cfg: float = 3.5,
        cfg_low: float = 0.0,
        sampler_name: str = "euler",
        scheduler: str = "simple",
        shift: float = 0.0,
        boundary: float = 0.0,
        denoise: float = 1.0,
        model_low: ModelPatcher | None = None,
    ) -> io.NodeOutput:
        require_wan(model_high, "model_high")
        if model_low is not None:
            require_wan(model_low, "model_low")
            require_pair({"high_noise": model_high, "low_noise": model_low})
        models = [model and with_shift(model, shift) for model in (model_high, model_low)]
        schedule = make_schedule(
            models[0],
            steps=steps,
            scheduler=scheduler,
            sampler_name=sampler_name,
            denoise=denoise,
            boundary=boundary,
        )
        report = schedule.report(two_experts=model_low is not None)
        node_text(cls.hidden.unique_id, report)
        request = Request(
            positive=positive,
            negative=negative,
            latent=latent,
            seed=seed,
            cfg=cfg,
            cfg_low=cfg_low,
            sampler_name=sampler_name,
        )
        return io.NodeOutput(sample_pair(models[0], models[1], schedule, request), report)
