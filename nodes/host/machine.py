"""This machine, as the host sees it: device, free memory, free disk, and its pace in matrix products."""

from __future__ import annotations

import functools
import logging
import shutil
import time
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management as management
import folder_paths
import torch

from ...training.plans.estimate_report import Machine
from ...training.plans.network_sizes import WAN_14B, NetworkSize
from .wan_models import linear_layers, require_wan

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

logger = logging.getLogger("tandem.machine")
MEASURE_S = 0.1
SIDE = {"cpu": 768}
"""Of the square matrices that are multiplied, by the kind of device; on others large enough to fill them."""
LARGE_SIDE = 4096


def this_machine(dtype: torch.dtype = torch.bfloat16) -> Machine:
    """What is free now, counting what the host's loaded models hold, which it can move away; `dtype` is that of the
    forward pass."""
    device = management.get_torch_device()
    own = device.type not in ("cpu", "mps")
    return Machine(
        device=_name(device),
        has_own_memory=own,
        device_free=_free(device),
        ram_free=_free(torch.device("cpu")),
        disk_free=float(
            shutil.disk_usage(_existing(Path(folder_paths.get_output_directory()))).free
        ),
        # A processor without bf16 units computes in float32 in any case.
        flops_per_s=matrix_pace(device, torch.float32 if device.type == "cpu" else dtype),
    )


def network_of(model: ModelPatcher) -> NetworkSize:
    """The network of a MODEL, with the bytes that its weights really take."""
    network = require_wan(model, "model")
    layers, host = linear_layers(network), model.model
    num_params = sum(prod(shape) for shape in layers.values())
    weight_bytes = float(model.model_size())
    return NetworkSize(
        name=f"the connected model (width {network.dim}, {len(network.blocks)} blocks)",
        layers=layers,
        num_params=num_params,
        weight_bytes=weight_bytes,
        compute_bytes=host.get_dtype_inference().itemsize,
        input_channels=network.patch_embedding.weight.shape[1],
        latent_channels=host.latent_format.latent_channels,
    )


def measured_for(model: ModelPatcher | None) -> tuple[NetworkSize, Machine]:
    """The network to plan for, and this machine: the connected MODEL, or else Wan 14B in bf16."""
    if model is None:
        return WAN_14B, this_machine()
    return network_of(model), this_machine(model.model.get_dtype_inference())


@functools.cache
def matrix_pace(device: torch.device, dtype: torch.dtype) -> float | None:
    """Operations a second in products of large square matrices, measured for a tenth of a second, once."""
    side = SIDE.get(device.type, LARGE_SIDE)
    try:
        with torch.inference_mode():
            left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
            return _pace(left, right, device)
    except RuntimeError as error:  # out of memory, or a device without this dtype
        logger.info("The pace of %s in %s was not measured: %s", device, dtype, error)
        return None


def _pace(left: torch.Tensor, right: torch.Tensor, device: torch.device) -> float:
    torch.mm(left, right)  # the first product loads kernels
    _finish(device)
    began, products = time.perf_counter(), 0
    while (seconds := time.perf_counter() - began) < MEASURE_S or not products:
        torch.mm(left, right)
        _finish(device)
        products += 1
    return 2.0 * len(left) ** 3 * products / max(seconds, 1e-9)


def _finish(device: torch.device) -> None:
    """Waits for what was asked of a device that works on its own."""
    if device.type in ("cuda", "xpu", "mps"):
        getattr(torch, device.type).synchronize()


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "this processor" if device.type == "cpu" else str(device)


def _free(device: torch.device) -> float:
    held = sum(
        loaded.model_loaded_memory()
        for loaded in management.current_loaded_models
        if loaded.device == device and loaded.model is not None
    )
    free = management.get_free_memory(device)
    assert isinstance(free, (int, float))
    return float(free) + held


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
