"""The pack as ComfyUI sees it: one list of nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .caption_report import TandemCaptionReport
from .caption_template import TandemCaptionTemplate
from .dataset import TandemDataset
from .doctor import TandemDatasetDoctor
from .host.jobs import runner
from .host.places import register_places
from .host.recipe_record import register_recorder
from .host.recipe_routes import register_recipe_routes
from .host.results import mend
from .host.routes import register_routes
from .host.signals import save_on_signals
from .host_dataset import TandemDatasetFromHost, TandemDatasetToHost
from .interop import TandemFromLoraStack, TandemToLoraStack
from .job import TandemJobControl, TandemJobResult
from .plan import TandemAutoParameters, TandemEditPlan
from .plan_files import TandemComparePlans, TandemLoadPlan, TandemSavePlan
from .plan_form import TandemPlanForm
from .plan_interop import TandemExportPlan, TandemImportPlan
from .radial import TandemRadialAttention, TandemRadialCalls
from .radial_plan import TandemRadialPlan
from .recipes import TandemLoadStack, TandemSaveStack, TandemStackFromVideo
from .sampler import TandemDualSampler
from .save_lora import TandemSaveLora
from .scenes import TandemScenes
from .stack import TandemApplyStack, TandemLoraStack
from .strength import TandemStrengthSchedule
from .text_encoder import TandemTextEncoderLoader
from .trainer import TandemTrainer
from .trigger_check import TandemTriggerCheck


class TandemExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_places()
        mend()
        register_routes()
        register_recipe_routes()
        register_recorder()
        # The host loads its packs in the main thread, the only one that can have handlers of signals.
        save_on_signals(runner)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            TandemDataset,
            TandemDatasetFromHost,
            TandemDatasetToHost,
            TandemCaptionTemplate,
            TandemCaptionReport,
            TandemTriggerCheck,
            TandemDatasetDoctor,
            TandemAutoParameters,
            TandemEditPlan,
            TandemPlanForm,
            TandemSavePlan,
            TandemLoadPlan,
            TandemComparePlans,
            TandemExportPlan,
            TandemImportPlan,
            TandemTrainer,
            TandemJobResult,
            TandemJobControl,
            TandemLoraStack,
            TandemApplyStack,
            TandemSaveLora,
            TandemSaveStack,
            TandemLoadStack,
            TandemStackFromVideo,
            TandemFromLoraStack,
            TandemToLoraStack,
            TandemStrengthSchedule,
            TandemScenes,
            TandemDualSampler,
            TandemRadialAttention,
            TandemRadialPlan,
            TandemRadialCalls,
            TandemTextEncoderLoader,
        ]
