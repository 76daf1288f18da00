"""A plan as diffusion-pipe's main configs: a TOML for each expert's run.

Keys as tdrussell/diffusion-pipe reads them at 8f83dbf (train.py, models/wan/wan.py, models/base.py, utils/common.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...wan.families import Role
from ...wan.lora.adapters import DEFAULT_TARGETS
from ..data.dataset import Counts, DatasetSettings
from ..expert_turns import expert_steps
from ..plans.plan import TrainingPlan
from .diffusion_pipe_data import CLIP_MODES, write_data
from .documents import DATASET_FILE, DIFFUSION_PIPE
from .experts import RunSettings, run_settings
from .layers import all_but
from .names import their_optimizer
from .noise import is_uniform, shift_with_mean
from .rates import CONSTANT, RESTARTS
from .toml_text import Row, toml_text

MOST_SWAPPED = 38
"""Of 40 blocks, two stay on the device there (models/wan/wan.py, enable_block_swap)."""
UNSLOTH = "unsloth"
"""Checkpointing that also moves what it keeps to RAM (utils/unsloth_utils.py)."""
ENDINGS: dict[Role, str] = {"high_noise": "_high", "low_noise": "_low", "single": ""}


def write(
    plan: TrainingPlan, parts: Sequence[DatasetSettings], counts: Counts | None
) -> dict[str, str]:
    """Texts by file name: a config for each expert that the plan trains, and the dataset."""
    steps: dict[Role, int] = {r: number for r, number in expert_steps(plan).items() if number}
    files = {
        f"config{ENDINGS[role]}.toml": _config(plan, role, number, parts, counts)
        for role, number in steps.items()
    }
    return files | {DATASET_FILE: write_data(parts)}


def _config(
    plan: TrainingPlan,
    role: Role,
    steps: int,
    parts: Sequence[DatasetSettings],
    counts: Counts | None,
) -> str:
    mode = CLIP_MODES.get(parts[0].clip_mode if parts else "head", "single_beginning")
    own = run_settings(plan, role)
    head: list[Row] = [
        ("output_dir", f"/path/to/output{ENDINGS[role]}", "set this"),
        ("dataset", DATASET_FILE, "set the full path of the other file"),
        _epochs(plan, own, steps, counts),
        ("max_steps", steps, ""),
        ("micro_batch_size_per_gpu", plan.batch, ""),
        ("pipeline_stages", 1, ""),
        ("gradient_accumulation_steps", plan.accumulate, ""),
        ("gradient_clipping", _clipping(plan, own), ""),
        ("lr_scheduler", own.rates.schedule.replace(RESTARTS, "cosine"), ""),
        ("warmup_steps", own.rates.warmup, ""),
        (
            "save_every_n_steps",
            max(1, round(plan.save_every * steps / plan.steps)),
            "of this run's own steps",
        ),
        *_memory(plan),
        ("save_dtype", "bfloat16", ""),
        ("caching_batch_size", 1, ""),
        ("steps_per_print", 1, ""),
        ("video_clip_mode", mode, ""),
        ("uncond_fraction", float(plan.caption_dropout), "samples without their caption"),
    ]
    return toml_text(
        f"Tandem's plan {plan.preset!r} for diffusion-pipe, {role.replace('_', ' ')}. Set every path.",
        {
            "": head,
            "model": _model(plan, role),
            "adapter": _adapter(own),
            "optimizer": _optimizer(plan, own),
        },
    )


def _epochs(plan: TrainingPlan, own: RunSettings, steps: int, counts: Counts | None) -> Row:
    samples = steps * plan.batch * plan.accumulate
    if own.rates.schedule == CONSTANT:
        most = max(1000, samples, round(samples / counts.shown) if counts and counts.shown else 0)
        return ("epochs", most, "only an upper bound: max_steps ends the run")
    if counts and counts.shown:
        return ("epochs", math.ceil(samples / counts.shown), "the rate falls over these")
    return ("epochs", max(1000, samples), "the rate falls over these: set as many as max_steps is")


def _memory(plan: TrainingPlan) -> list[Row]:
    kind = UNSLOTH if plan.offload_activations else plan.checkpoint_blocks
    rows: list[Row] = [("activation_checkpointing", kind, "")]
    if plan.swap_blocks:
        rows.append(("blocks_to_swap", min(plan.swap_blocks, MOST_SWAPPED), "of this run's model"))
    return rows


def _adapter(own: RunSettings) -> list[Row]:
    rows: list[Row] = [
        ("type", "lora", ""),
        ("rank", own.rank, "alpha is the rank there"),
        ("dtype", "bfloat16", ""),
        ("dropout", float(own.dropout), ""),
    ]
    if own.targets != DEFAULT_TARGETS and (excluded := all_but(own.targets)):
        rows.append(("exclude_modules", excluded, ""))
    return rows


def _model(plan: TrainingPlan, role: Role) -> list[Row]:
    task = plan.task.upper()
    rows: list[Row] = [("type", "wan", "")]
    if role == "single":
        rows.append(("ckpt_path", f"/path/to/Wan2.1-{task}-14B", "set this: the model's folder"))
    else:
        folder = f"/path/to/Wan2.2-{task}-A14B"
        rows += [
            ("ckpt_path", folder, "set this: the model's folder"),
            ("transformer_path", f"{folder}/{role}_model", "set this: the expert"),
        ]
    rows += [("dtype", "bfloat16", ""), *_sigmas(plan)]
    if role != "single":
        low, high = (plan.boundary, 1.0) if role == "high_noise" else (0.0, plan.boundary)
        rows += [("min_t", float(low), ""), ("max_t", float(high), "")]
    return rows


def _sigmas(plan: TrainingPlan) -> list[Row]:
    shift: Row = ("shift", shift_with_mean(plan), "")
    if is_uniform(plan):
        return [("timestep_sample_method", "uniform", ""), shift]
    return [
        ("timestep_sample_method", "logit_normal", ""),
        ("sigmoid_scale", float(plan.timesteps.std), ""),
        shift,
    ]


def _optimizer(plan: TrainingPlan, own: RunSettings) -> list[Row]:
    rates, settings = own.rates, plan.optimizer
    rows: list[Row] = [
        ("type", their_optimizer(DIFFUSION_PIPE, settings.name), ""),
        ("lr", float(rates.rate), ""),
    ]
    if settings.name == "automagic":
        rows += [
            ("min_lr", _or(rates.minimum, rates.rate), ""),
            ("max_lr", _or(rates.maximum, rates.rate), ""),
            ("lr_bump", _or(rates.bump, rates.rate), ""),
            ("clip_threshold", float(own.clip), ""),
            ("beta2", float(own.beta2), ""),
        ]
    else:
        rows += [("betas", [0.9, float(own.beta2)], ""), ("eps", 1e-8, "")]
    return [*rows, ("weight_decay", float(settings.weight_decay), "")]


def _or(value: float | None, otherwise: float) -> float:
    return float(otherwise if value is None else value)


def _clipping(plan: TrainingPlan, own: RunSettings) -> float:
    # Automagic bounds each update itself; DeepSpeed takes 0 for no clipping.
    return 0.0 if plan.optimizer.name == "automagic" else float(own.clip)
