"""The pack as ComfyUI sees it: one list of nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .dataset import TandemCaptionTemplate, TandemDataset
from .host.places import register_places
from .host.routes import register_routes
from .job import TandemJobControl, TandemJobResult
from .plan import TandemAutoParameters, TandemEditPlan
from .sampler import TandemDualSampler
from .stack import TandemApplyStack, TandemLoraStack
from .text_encoder import TandemTextEncoderLoader
from .trainer import TandemTrainer


class TandemExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_places()
        register_routes()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            TandemDataset,
            TandemCaptionTemplate,
            TandemAutoParameters,
            TandemEditPlan,
            TandemTrainer,
            TandemJobResult,
            TandemJobControl,
            TandemLoraStack,
            TandemApplyStack,
            TandemDualSampler,
            TandemTextEncoderLoader,
        ]
