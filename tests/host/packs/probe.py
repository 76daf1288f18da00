"""A pack for the host under test: looks at what training could leave behind, and fails on demand."""

import gc
import json
import os
import threading

import comfy.model_management
import psutil
import torch
from comfy_execution.cache_provider import _get_cache_providers
from server import PromptServer


def looked_at(model) -> dict:
    modules = list(model.model.diffusion_model.modules())
    queue = PromptServer.instance.prompt_queue
    gc.collect()
    return {
        "in_training": comfy.model_management.in_training,
        "hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules),
        "patched_forwards": sum("forward" in vars(m) for m in modules),
        "gradients": sum(p.requires_grad for m in modules for p in m.parameters(recurse=False)),
        "grad_mode": torch.is_grad_enabled(),
        "inference_mode": torch.is_inference_mode_enabled(),
        "queue_wrapped": "get" in vars(queue),
        "providers": [type(p).__name__ for p in _get_cache_providers()],
        "threads": threading.active_count(),
        "ours": [t.name for t in threading.enumerate() if t.name.startswith("tandem")],
        "files": psutil.Process().num_fds(),
        "rss_mib": psutil.Process().memory_info().rss / 2**20,
        "loaded": len(comfy.model_management.current_loaded_models),
        "weights": sorted({type(p.data).__name__ for m in modules for p in m.parameters(False)}),
        "pid": os.getpid(),
    }


class TestProbe:
    """What the process and a MODEL look like while a prompt runs."""

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"model": ("MODEL",), "nonce": ("INT", {"default": 0, "max": 2**31})}}

    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "run", True, "test"

    def run(self, model, nonce):
        del nonce
        return {"ui": {"text": [json.dumps(looked_at(model))]}}


class TestRaise:
    """A node that raises with a MODEL in its hands."""

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"model": ("MODEL",)}}

    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "run", True, "test"

    def run(self, model):
        with torch.inference_mode():
            comfy.model_management.load_models_gpu([model])
        raise RuntimeError("raised on purpose")


NODE_CLASS_MAPPINGS = {"TestProbe": TestProbe, "TestRaise": TestRaise}
