"""A plan as ai-toolkit's YAML: one for both experts, or one for each where they are trained one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import yaml

from ...wan.families import Role
from ...wan.loss_weights import X0
from ..data.dataset import Counts, DatasetSettings
from ..expert_turns import expert_steps
from ..plans.plan import TrainingPlan
from .ai_toolkit_data import write_data
from .documents import AI_TOOLKIT
from .experts import RunSettings, run_settings
from .names import ATTENTION, SEEDS, their_optimizer
from .noise import is_uniform
from .rates import CONSTANT, WARMED

BLOCKS = 40
"""Of the 14B networks: offloading is a share of the layers there."""
ALL_SAVES = 1000
"""As many checkpoints as no run has."""
ENDINGS: dict[tuple[Role, ...], str] = {("high_noise",): "_high", ("low_noise",): "_low"}


def write(
    plan: TrainingPlan, parts: Sequence[DatasetSettings], counts: Counts | None
) -> dict[str, str]:
    """Texts by file name; a config for each expert of a sequential plan, else one."""
    del counts
    runs: dict[tuple[Role, ...], int] = {plan.roles(): plan.steps}
    if plan.order == "sequential" and len(plan.roles()) == 2:
        runs = {(role,): steps for role, steps in expert_steps(plan).items() if steps}
    apart = plan.roles() not in runs
    return {
        f"config{ENDINGS.get(roles, '') if apart else ''}.yaml": _config(plan, roles, steps, parts)
        for roles, steps in runs.items()
    }


def _config(
    plan: TrainingPlan, roles: tuple[Role, ...], steps: int, parts: Sequence[DatasetSettings]
) -> str:
    every = max(1, round(plan.save_every * steps / plan.steps))
    process: dict[str, Any] = {
        "type": "sd_trainer",
        "training_folder": "output",
        "device": "cuda:0",
        "training_seed": plan.seed % SEEDS,
        "network": _network([run_settings(plan, role) for role in roles]),
        "save": {
            "dtype": "float16",
            "save_every": every,
            "max_step_saves_to_keep": plan.prune.last or max(ALL_SAVES, math.ceil(steps / every)),
        },
        "datasets": write_data(parts, plan.caption_dropout),
        "train": _train(plan, roles, steps),
        "model": _model(plan, roles),
    }
    config = {
        "job": "extension",
        "config": {"name": f"tandem_lora{ENDINGS.get(roles, '')}", "process": [process]},
        "meta": {"name": "[name]", "version": "1.0"},
    }
    title = f"# Tandem's plan {plan.preset!r} for ai-toolkit. Set model.name_or_path and each folder_path."
    return f"{title}\n{_yaml(config)}"


class _Dumper(yaml.SafeDumper):
    """Every text on one line: a line of its own could be read as a mark of ours."""


def _one_line(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if "\n" in text else None)


_Dumper.add_representer(str, _one_line)


def _yaml(config: dict[str, Any]) -> str:
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


def _network(runs: Sequence[RunSettings]) -> dict[str, Any]:
    """One network for all: the larger rank, and the layers of both."""
    rank = max(run.rank for run in runs)
    network: dict[str, Any] = {"type": "lora", "linear": rank, "linear_alpha": rank}
    if dropout := min(run.dropout for run in runs):
        network["dropout"] = float(dropout)
    if all(run.targets == ATTENTION for run in runs):
        network["network_kwargs"] = {"ignore_if_contains": ["ffn"]}
    return network


def _train(plan: TrainingPlan, roles: tuple[Role, ...], steps: int) -> dict[str, Any]:
    own = min((run_settings(plan, role) for role in roles), key=lambda run: run.rates.rate)
    rates, settings = own.rates, plan.optimizer
    params: dict[str, Any] = {"weight_decay": float(settings.weight_decay)}
    if settings.name == "automagic":
        bounds = {"lr_bump": rates.bump, "min_lr": rates.minimum, "max_lr": rates.maximum}
        params |= {n: float(rates.rate if v is None else v) for n, v in bounds.items()}
        params |= {"clip_threshold": float(own.clip), "beta2": float(own.beta2)}
    else:
        params["betas"] = [0.9, float(own.beta2)]
    train: dict[str, Any] = {
        "batch_size": plan.batch,
        "steps": steps,
        "gradient_accumulation": plan.accumulate,
        "train_unet": True,
        "train_text_encoder": False,
        "gradient_checkpointing": plan.checkpoint_blocks,
        "noise_scheduler": "flowmatch",
        "timestep_type": _timestep_type(plan),
        "optimizer": their_optimizer(AI_TOOLKIT, settings.name),
        "lr": float(rates.rate),
        "optimizer_params": params,
        **_schedule(plan, roles, rates.schedule),
        "dtype": "bf16",
        "disable_sampling": True,
    }
    if settings.name != "automagic":
        train["max_grad_norm"] = float(own.clip)
    if settings.ema:
        train["ema_config"] = {"use_ema": True, "ema_decay": float(settings.ema)}
    if plan.loss.weighting == X0:
        train["t0_loss_target"] = True
    if len(roles) > 1:
        turn = plan.swap_every if plan.order == "interleaved" else 1
        train["switch_boundary_every"] = turn * plan.accumulate
    return train


def _timestep_type(plan: TrainingPlan) -> str:
    if not is_uniform(plan):
        return "sigmoid"
    return "linear" if plan.shift == 1 else "shift"


def _schedule(plan: TrainingPlan, roles: tuple[Role, ...], name: str) -> dict[str, Any]:
    """A falling rate has no warm-up there; a constant one has, over the steps of both experts."""
    warmup = sum(plan.rates(role).warmup for role in roles)
    if name == CONSTANT and not warmup:
        return {"lr_scheduler": CONSTANT}
    if name == CONSTANT:
        return {"lr_scheduler": WARMED, "lr_scheduler_params": {"num_warmup_steps": warmup}}
    if name == "linear":
        ends = {"start_factor": 1.0, "end_factor": 0.0}
        return {"lr_scheduler": "linear", "lr_scheduler_params": ends}
    return {"lr_scheduler": "cosine"}


def _model(plan: TrainingPlan, roles: tuple[Role, ...]) -> dict[str, Any]:
    ending = "_i2v" if plan.task == "i2v" else ""
    task = plan.task.upper()
    model: dict[str, Any] = {}
    if plan.swap_blocks:
        share = min(plan.swap_blocks, BLOCKS) / BLOCKS
        model = {"layer_offloading": True, "layer_offloading_transformer_percent": share}
    if roles == ("single",):
        name = f"/path/to/Wan2.1-{task}-14B-Diffusers"
        return {"name_or_path": name, "arch": f"wan21{ending}"} | model
    trained = {f"train_{role}": role in roles for role in ("high_noise", "low_noise")}
    return {
        "name_or_path": f"/path/to/Wan2.2-{task}-A14B-Diffusers",
        "arch": f"wan22_14b{ending}",
        "model_kwargs": trained,
        **model,
    }
