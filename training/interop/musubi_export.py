"""A plan as musubi-tuner's commands: one for each expert.

Arguments as kohya-ss/musubi-tuner reads them at 30c658c (wan_train_network.py, training/parser_common.py,
training/trainer_base.py, networks/lora.py, utils/train_utils.py).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from ...wan.families import Role
from ...wan.lora.adapters import DEFAULT_TARGETS
from ...wan.loss_weights import COSMAP
from ..data.dataset import Counts, DatasetSettings
from ..expert_turns import expert_steps
from ..plans.plan import TrainingPlan
from .documents import DATASET_FILE, MUSUBI
from .experts import RunSettings, run_settings
from .layers import are_patterns, list_text
from .musubi_data import write_data
from .names import ATTENTION, SEEDS, their_optimizer
from .noise import is_uniform, shift_with_mean
from .rates import CONSTANT, RESTARTS, WARMED

LOGISTIC = 1.702
"""A normal variable times this is nearly logistic, so its sigmoid is nearly uniform: the distribution functions
differ by less than 0.01 (Haley 1952)."""
NO_FEED_FORWARD = "exclude_patterns=[r'.*ffn.*']"
MOST_SWAPPED = 39
"""Of 40 blocks, one stays on the device there (wan/modules/model.py, enable_block_swap)."""
ENDINGS: dict[Role, str] = {"high_noise": "_high", "low_noise": "_low", "single": ""}


def write(
    plan: TrainingPlan, parts: Sequence[DatasetSettings], counts: Counts | None
) -> dict[str, str]:
    """Texts by file name: a command for each expert that the plan trains, and the dataset."""
    del counts
    steps: dict[Role, int] = {r: number for r, number in expert_steps(plan).items() if number}
    files: dict[str, str] = {
        f"train{ENDINGS[role]}.sh": _command(plan, role, number) for role, number in steps.items()
    }
    return files | {DATASET_FILE: write_data(parts, plan.batch)}


def _command(plan: TrainingPlan, role: Role, steps: int) -> str:
    lines = [
        "accelerate launch --num_cpu_threads_per_process 1 --mixed_precision bf16 "
        "src/musubi_tuner/wan_train_network.py"
    ]
    lines += [
        " ".join([f"--{name}", *(shlex.quote(word) for word in words)])
        for name, words in _arguments(plan, role, steps).items()
    ]
    title = f"# Tandem's plan {plan.preset!r} for musubi-tuner, {role.replace('_', ' ')}. Set every path."
    return title + "\n" + " \\\n  ".join(lines) + "\n"


def _arguments(plan: TrainingPlan, role: Role, steps: int) -> dict[str, list[str]]:
    own = run_settings(plan, role)
    every = max(1, round(plan.save_every * steps / plan.steps))
    size = "14B" if role == "single" else "A14B"
    name = f"wan2.1_{plan.task}_14B" if role == "single" else f"wan2.2_{plan.task}_{role}_14B"
    arguments: dict[str, list[Any]] = {
        "task": [f"{plan.task}-{size}"],
        "dit": [f"/path/to/{name}.safetensors"],
        "dataset_config": [DATASET_FILE],
        "sdpa": [],
        "mixed_precision": ["bf16"],
        "optimizer_type": [their_optimizer(MUSUBI, plan.optimizer.name)],
        "optimizer_args": [
            f"weight_decay={float(plan.optimizer.weight_decay)}",
            f"betas=0.9,{float(own.beta2)}",
        ],
        "learning_rate": [float(own.rates.rate)],
        **_schedule(own),
        "max_grad_norm": [float(own.clip)],
        "gradient_accumulation_steps": [plan.accumulate],
        "network_module": ["networks.lora_wan"],
        "network_dim": [own.rank],
        "network_alpha": [float(own.alpha)],
        **_timesteps(plan, role),
        "max_train_steps": [steps],
        "save_every_n_steps": [every],
        "seed": [plan.seed % SEEDS],
        "output_dir": ["/path/to/output"],
        "output_name": [f"tandem_lora{ENDINGS[role]}"],
    }
    if own.dropout:
        arguments["network_dropout"] = [float(own.dropout)]
    if layers := _layers(own.targets):
        arguments["network_args"] = layers
    if plan.loss.weighting == COSMAP:
        arguments["weighting_scheme"] = [COSMAP]
    if plan.prune.last:
        # Those of the last so many steps, both ends included.
        arguments["save_last_n_steps"] = [(plan.prune.last - 1) * every]
    arguments |= _memory(plan)
    return {name: [str(word) for word in words] for name, words in arguments.items()}


def _schedule(own: RunSettings) -> dict[str, list[Any]]:
    name, warmup = own.rates.schedule, own.rates.warmup
    if name == CONSTANT:
        return {"lr_scheduler": [WARMED], "lr_warmup_steps": [warmup]} if warmup else {}
    words: dict[str, list[Any]] = {"lr_scheduler": [name.replace(" ", "_")]}
    if warmup:
        words["lr_warmup_steps"] = [warmup]
    return words | ({"lr_scheduler_num_cycles": [own.rates.cycles]} if name == RESTARTS else {})


def _layers(targets: tuple[str, ...]) -> list[str]:
    """What is trained, as what is left out and what is not after all. An argument is cut at every `=` there."""
    if targets == ATTENTION:
        return [NO_FEED_FORWARD]
    if targets == DEFAULT_TARGETS or not are_patterns(targets) or any("=" in t for t in targets):
        return []
    return [f"exclude_patterns={list_text(['.*'])}", f"include_patterns={list_text(targets)}"]


def _memory(plan: TrainingPlan) -> dict[str, list[Any]]:
    words: dict[str, list[Any]] = {}
    if plan.checkpoint_blocks:
        words["gradient_checkpointing"] = []
    if plan.offload_activations:
        words["gradient_checkpointing_cpu_offload"] = []
    if plan.swap_blocks:
        words["blocks_to_swap"] = [min(plan.swap_blocks, MOST_SWAPPED)]
    return words


def _timesteps(plan: TrainingPlan, role: Role) -> dict[str, list[Any]]:
    drawn: dict[str, list[Any]] = {
        "timestep_sampling": ["shift"],
        "sigmoid_scale": [LOGISTIC if is_uniform(plan) else float(plan.timesteps.std)],
        "discrete_flow_shift": [shift_with_mean(plan)],
    }
    if role == "single":
        return drawn
    at = min(max(round(plan.boundary * 1000), 1), 999)
    low, high = (at, 1000) if role == "high_noise" else (0, at)
    return drawn | {
        "min_timestep": [low],
        "max_timestep": [high],
        "preserve_distribution_shape": [],
    }
