"""The nodes that put radial attention on a model, and say afterwards what it did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..radial_attention.backends import BACKENDS
from ..radial_attention.errors import SettingsError
from ..radial_attention.rule import SINKS
from ..radial_attention.settings import PRESETS, RadialSettings, chosen_settings
from ..wan.errors import UserError
from . import sockets
from .host.progress import node_text
from .host.radial import radial_of, three_parts, with_radial
from .host.radial_patch import RadialPatch
from .host.radial_report import calls_report, patch_report
from .host.wan_models import require_wan

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

AS_PRESET = "preset"


def preset_input() -> io.Input:
    return io.Combo.Input(
        "preset",
        options=list(PRESETS),
        default=next(iter(PRESETS)),
        tooltip="How much is left out, for example balanced: decay 0.2, blocks 0-1 and the first 2 steps dense. "
        "quality: decay 0.8, a quarter of the steps dense; fast: one block, one step; paper: as published.",
    )


def decay_input() -> io.Input:
    return io.Float.Input(
        "decay_factor",
        default=0.0,
        min=0.0,
        max=100.0,
        step=0.05,
        optional=True,
        tooltip="Width of what distant frames see of each other, for example 0.4: higher is wider, slower and nearer "
        "to dense. 0 takes the preset's.",
    )


def layers_input() -> io.Input:
    return io.String.Input(
        "dense_layers",
        default="",
        optional=True,
        tooltip="Blocks that see everything, for example 0-1,-1: the first two and the last one; none for no block. "
        "Empty takes the preset's.",
    )


def steps_input() -> io.Input:
    return io.Int.Input(
        "dense_timesteps",
        default=-1,
        min=-1,
        max=10_000,
        optional=True,
        tooltip="First steps of the whole schedule that see everything, over both experts, for example 2. -1 takes "
        "the preset's.",
    )


def _later_inputs() -> list[io.Input]:
    """In the order in which they came: sockets are never moved."""
    return [
        io.Int.Input(
            "last_dense_timesteps",
            default=-1,
            min=-1,
            max=10_000,
            optional=True,
            tooltip="Last steps of the whole schedule that see everything, for example 1. -1 takes the "
            "preset's.",
        ),
        io.Combo.Input(
            "backend",
            options=list(BACKENDS),
            default=BACKENDS[0],
            optional=True,
            tooltip="What computes it. auto: flex on a GPU with Triton, else gather, which runs anywhere. "
            "dense reference is slow and exact, to compare with at tiny sizes.",
        ),
        io.Int.Input(
            "tile",
            default=0,
            min=0,
            max=1024,
            optional=True,
            tooltip="Tokens that are looked at together, for example 64; 0 takes the backend's, or a part of "
            "the frame.",
        ),
        io.Int.Input(
            "min_tokens",
            default=0,
            min=0,
            max=10_000_000,
            optional=True,
            tooltip="Shorter sequences run dense, for example 12000: there is little to gain. 0 for no limit.",
        ),
        io.Combo.Input(
            "sink",
            options=[AS_PRESET, *SINKS],
            default=AS_PRESET,
            optional=True,
            tooltip="Frames that every token sees whole: first and last suits first-last-frame models. preset "
            "is the first frame.",
        ),
        io.Boolean.Input(
            "strict",
            default=False,
            optional=True,
            tooltip="On: what cannot be treated (Camera, Animate, S2V, HuMo, ...) is an error. Off: it runs "
            "dense, and the report says so.",
        ),
        io.Boolean.Input(
            "probe",
            default=False,
            optional=True,
            tooltip="On: computes every block both ways and proposes decay_factor and dense_layers in Tandem "
            "Radial Calls. Slower than dense; for one test run.",
        ),
        io.String.Input(
            "dense_window",
            default="",
            optional=True,
            tooltip="What sees everything by noise instead of by steps: 0-25%, 95-100% of the schedule, or "
            "sigma 1-0.9. Empty counts steps.",
        ),
    ]


class TandemRadialAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemRadialAttention",
            display_name="Tandem Radial Attention",
            category="Tandem/sampling",
            description="Makes long clips faster: frames that are far apart in time see only a narrow band of each "
            "other. Any size, with or without a GPU; a model that carries it is also trained with it. Tandem Radial "
            "Plan says before a run what it can gain.",
            search_aliases=["sparse attention", "radial attention", "faster wan", "long video"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="A Wan 2.1 or 2.2 model; one node for each expert."
                ),
                preset_input(),
                decay_input(),
                layers_input(),
                steps_input(),
                *_later_inputs(),
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        preset: str | None = None,
        decay_factor: float | None = None,
        dense_layers: str | None = None,
        dense_window: str | None = None,
        sink: str | None = None,
    ) -> bool | str:
        return sockets.first_error(
            lambda: settings_of(preset or "", decay_factor or 0, dense_layers or "", dense_window=dense_window or "",
                                sink=sink or AS_PRESET)
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        preset: str,
        decay_factor: float = 0.0,
        dense_layers: str = "",
        dense_timesteps: int = -1,
        last_dense_timesteps: int = -1,
        backend: str = BACKENDS[0],
        tile: int = 0,
        min_tokens: int = 0,
        sink: str = AS_PRESET,
        strict: bool = False,
        probe: bool = False,
        dense_window: str = "",
    ) -> io.NodeOutput:
        require_wan(model, "model")
        settings = settings_of(
            preset,
            decay_factor,
            dense_layers,
            dense_timesteps,
            last_dense_steps=last_dense_timesteps,
            dense_window=dense_window,
            tile=tile,
            sink=sink,
        )
        patch = RadialPatch(
            settings=settings,
            backend=backend,
            min_tokens=min_tokens,
            strict=strict,
            probe=probe,
            preset=preset,
        )
        patched = with_radial(model, patch)
        radial = radial_of(patched)
        assert radial is not None
        report = patch_report(patched, radial)
        node_text(cls.hidden.unique_id, report)
        return io.NodeOutput(patched, report)


class TandemRadialCalls(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TandemRadialCalls",
            display_name="Tandem Radial Calls",
            category="Tandem/sampling",
            description="Says after sampling what radial attention did: which calls ran sparse or dense and why, how "
            "dense the mask was, how long attention took, and what a probe proposes.",
            search_aliases=["radial report", "sparse attention report", "attention probe"],
            inputs=[
                io.Latent.Input("latent", tooltip="From the sampler, so that this runs after it."),
                io.Model.Input("model", tooltip="The model that Tandem Radial Attention gave."),
                io.Model.Input(
                    "model_low",
                    optional=True,
                    tooltip="The low-noise expert (runs second), if it carries radial attention too.",
                ),
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
        latent: Mapping[str, Any],
        model: ModelPatcher,
        model_low: ModelPatcher | None = None,
    ) -> io.NodeOutput:
        models = (
            {"model": model} if model_low is None else {"high noise": model, "low noise": model_low}
        )
        reports = []
        for name, each in models.items():
            radial = radial_of(each)
            if radial is None:
                raise UserError(
                    f"{name} carries no radial attention.",
                    "It takes a model as Tandem Radial Attention gives it, the same one that the sampler has.",
                    "Connect that node's model here and to the sampler.",
                )
            text = calls_report(each, radial)
            reports.append(text if model_low is None else f"{name}: {text}")
        report = "\n\n".join(reports)
        node_text(cls.hidden.unique_id, report)
        return io.NodeOutput(dict(latent), report)


def settings_of(
    preset: str,
    decay_factor: float = 0.0,
    dense_layers: str = "",
    dense_timesteps: int = -1,
    *,
    last_dense_steps: int = -1,
    dense_window: str = "",
    tile: int = 0,
    sink: str = AS_PRESET,
) -> RadialSettings:
    """What the widgets of a node say. Raises `UserError` for what cannot be."""
    with three_parts():
        if preset not in PRESETS:
            raise SettingsError(f"preset is {preset!r}; it can be {', '.join(PRESETS)}")
        if decay_factor < 0:
            raise SettingsError(
                f"decay_factor is {decay_factor:g}; it can be 0 for the preset's, or above: 0.2 to 1 is usual"
            )
        return chosen_settings(
            preset,
            decay=decay_factor,
            dense_layers=dense_layers,
            dense_steps=dense_timesteps,
            last_dense_steps=last_dense_steps,
            dense_window=dense_window,
            tile=tile,
            sink="" if sink == AS_PRESET else sink,
        )
