"""musubi-tuner's arguments: a command for each expert, or the same as TOML.

Arguments as kohya-ss/musubi-tuner reads them at 30c658c (wan_train_network.py, training/parser_common.py).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ...wan.families import A14B, SINGLE, Role
from ..data.dataset import Counts, DatasetSettings
from ..expert_turns import expert_steps
from ..plans.plan import TrainingPlan
from .documents import DATA, MUSUBI, Document
from .draft import Draft, RunDraft, Values, default_boundary, given_counts, merge_runs
from .keys import Keys, Reasons, sort_left
from .musubi_data import read_data, write_data
from .names import (
    ATTENTION,
    REPLACEMENT_RATE,
    SEEDS,
    model_in,
    our_optimizer,
    second_beta,
    their_optimizer,
)
from .words import CONSTANT_RATE, MIN_SNR, NO_CLIP

LOGISTIC = 1.702
"""A normal variable times this is nearly logistic, so its sigmoid is nearly uniform: the distribution functions
differ by less than 0.01 (Haley 1952)."""
NO_FEED_FORWARD = "exclude_patterns=[r'.*ffn.*']"
ENDINGS: dict[Role, str] = {"high_noise": "_high", "low_noise": "_low", "single": ""}

WHY = {
    "caption_dropout": "it always shows the caption",
    "swap_every": "each expert is a run of its own",
    "boundary": "min_timestep and max_timestep are whole thousandths",
    "lora.targets": "it trains all linear layers of the blocks; only kinds of layers can be left out",
    "optimizer.name": "its nearest optimizer is named in the arguments",
    "save_every": "each run counts its own steps",
}

IGNORED: Reasons = (
    (
        r"dit|dit_high_noise|vae|t5|clip|dataset_config|config_file|output_.*|logging_dir|log_.*|resume.*",
        "the graph has its own",
    ),
    (r"task|network_module", "read"),
    (
        r"(vae|dit|text_encoder)_?(dtype|tiling|chunk_size|cache_cpu)?|fp8_.*|mixed_precision|save_precision",
        "the graph's loaders decide how the model is held",
    ),
    (
        r"sdpa|flash_attn|flash3|sage_attn|xformers|split_attn|compile.*|dynamo_.*|cuda_.*",
        "attention and speed are the host's",
    ),
    (
        r"blocks_to_swap|block_swap_.*|use_pinned_memory.*|offload_inactive_dit|disable_numpy_memmap",
        "memory is the host's",
    ),
    (r"img_in_txt_in_offloading", "memory is the host's"),
    (
        r"max_data_loader_n_workers|persistent_data_loader_workers|ddp_.*",
        "clips come from the cache",
    ),
    (r"sample_.*|one_frame", "previews are a setting of the trainer node"),
    (r"lr_.*", CONSTANT_RATE),
    (r"weighting_scheme|logit_mean|logit_std|mode_scale", "the loss is not weighted; " + MIN_SNR),
    (
        r"sigmoid_scale|num_timestep_buckets|preserve_distribution_shape|guidance_scale",
        "the schedule is uniform, warped by shift",
    ),
    (
        r"network_weights|base_weights.*|dim_from_weights|scale_weight_norms",
        "a run begins with fresh adapters",
    ),
    (
        r"save_last_.*|save_state.*|no_metadata|metadata_.*|training_comment|huggingface_.*|async_upload|wandb_.*",
        "checkpoints hold the whole state, and stay on this machine",
    ),
    (r"force_v2_1_time_embedding|show_timesteps", "the model decides"),
)


def write(
    plan: TrainingPlan, parts: Sequence[DatasetSettings], counts: Counts | None
) -> dict[str, str]:
    """Texts by file name: a command for each expert that the plan trains, and the dataset."""
    del counts
    steps: dict[Role, int] = {r: number for r, number in expert_steps(plan).items() if number}
    files: dict[str, str] = {
        f"train{ENDINGS[role]}.sh": _command(plan, role, number) for role, number in steps.items()
    }
    return files | {"dataset.toml": write_data(parts, plan.batch)}


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
    size = "14B" if role == "single" else "A14B"
    name = f"wan2.1_{plan.task}_14B" if role == "single" else f"wan2.2_{plan.task}_{role}_14B"
    arguments: dict[str, list[Any]] = {
        "task": [f"{plan.task}-{size}"],
        "dit": [f"/path/to/{name}.safetensors"],
        "dataset_config": ["dataset.toml"],
        "sdpa": [],
        "mixed_precision": ["bf16"],
        "optimizer_type": [their_optimizer(MUSUBI, plan.optimizer.name)],
        "optimizer_args": [
            f"weight_decay={float(plan.optimizer.weight_decay)}",
            f"betas=0.9,{float(plan.optimizer.beta2)}",
        ],
        "learning_rate": [float(plan.rates(role).rate)],
        "max_grad_norm": [float(plan.optimizer.clip)],
        "gradient_accumulation_steps": [plan.accumulate],
        "network_module": ["networks.lora_wan"],
        "network_dim": [plan.lora.rank],
        "network_alpha": [float(plan.lora.alpha)],
        **_timesteps(plan, role),
        "max_train_steps": [steps],
        "save_every_n_steps": [max(1, round(plan.save_every * steps / plan.steps))],
        "seed": [plan.seed % SEEDS],
        "output_dir": ["/path/to/output"],
        "output_name": [f"tandem_lora{ENDINGS[role]}"],
    }
    if plan.lora.dropout:
        arguments["network_dropout"] = [float(plan.lora.dropout)]
    if plan.lora.targets == ATTENTION:
        arguments["network_args"] = [NO_FEED_FORWARD]
    if plan.checkpoint_blocks:
        arguments["gradient_checkpointing"] = []
    return {name: [str(word) for word in words] for name, words in arguments.items()}


def _timesteps(plan: TrainingPlan, role: Role) -> dict[str, list[Any]]:
    drawn: dict[str, list[Any]] = {
        "timestep_sampling": ["shift"],
        "sigmoid_scale": [LOGISTIC],
        "discrete_flow_shift": [float(plan.shift)],
    }
    if role == "single":
        return drawn
    at = round(plan.boundary * 1000)
    low, high = (at, 1000) if role == "high_noise" else (0, at)
    return drawn | {
        "min_timestep": [low],
        "max_timestep": [high],
        "preserve_distribution_shape": [],
    }


def read(documents: list[Document], counts: Counts | None, clips: int) -> Draft:
    """What the commands and the dataset say."""
    draft = Draft(MUSUBI, documents)
    for document in documents:
        if document.kind == MUSUBI + DATA:
            read_data(document, draft)
    mains = [d for d in documents if d.kind == MUSUBI]
    if mains:
        runs = [_run(draft, document) for document in mains]
        runs = runs if len(runs) > 1 else _joint(draft, mains[0], runs[0])
        merge_runs(draft, runs, counts or given_counts(draft.parts, clips))
        draft.values.setdefault("boundary", default_boundary(draft.values))
        draft.values.setdefault("batch", 1)
    return draft


def _arguments_of(document: Document) -> Mapping[str, Any]:
    """A TOML may have its arguments under tables of any name."""
    flat: dict[str, Any] = {}
    for name, value in document.values.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _run(draft: Draft, document: Document) -> RunDraft:
    keys = Keys(_arguments_of(document), document.name)
    values: Values = {
        "accumulate": keys.whole("gradient_accumulation_steps", 1, 1),
        "checkpoint_blocks": keys.flag("gradient_checkpointing")
        or keys.flag("gradient_checkpointing_cpu_offload"),
        "seed": keys.seed("seed"),
        "shift": keys.number("discrete_flow_shift", 1.0),
    }
    if "batch" in draft.values:
        values["batch"] = draft.values["batch"]
    role = _read_model(draft, keys, values)
    _read_sampling(draft, keys, values)
    _read_network(draft, keys, values)
    rates = _read_optimizer(draft, keys, values)
    epochs = keys.positive("max_train_epochs")
    steps = keys.whole("max_train_steps", 1600, 1)
    run = RunDraft(
        role=role,
        where=document.name,
        values=values,
        rates=rates,
        # Epochs go before steps there.
        steps=steps if epochs is None else None,
        epochs=epochs,
        save_steps=keys.whole("save_every_n_steps", None, 1),
        save_epochs=keys.number("save_every_n_epochs"),
    )
    draft.leave(*sort_left(keys, IGNORED))
    return run


def _read_model(draft: Draft, keys: Keys, values: Values) -> Role:
    task, dit = keys.text("task", "t2v-14B"), keys.text("dit")
    keys.raw("timestep_boundary")  # of a joint run
    values["task"] = "i2v" if "i2v" in task.lower() else "t2v"
    family = A14B if "a14b" in task.lower() else SINGLE
    low, high = keys.whole("min_timestep", 0) or 0, keys.whole("max_timestep", 1000) or 0
    if low <= 0 and high >= 1000:
        role = model_in(dit).role if family == A14B else None
        if role:
            draft.note(
                "An expert was trained on all noise; here each is trained on its own side of the boundary."
            )
        elif family == A14B:
            draft.values["family"] = family
        return role or "single"
    role = "high_noise" if high >= 1000 or (low > 0 and low + high > 1000) else "low_noise"
    values["boundary"] = (low if role == "high_noise" else high) / 1000
    if low > 0 and high < 1000:
        draft.note(
            f"{keys.where} trains timesteps {low} to {high} only; here the {role} expert has all of its side."
        )
    return role


def _joint(draft: Draft, document: Document, run: RunDraft) -> list[RunDraft]:
    """One run with both experts, which shares a LoRA between them."""
    arguments = Keys(_arguments_of(document), document.name)
    if "dit_high_noise" not in arguments:
        return [run]
    boundary = arguments.number("timestep_boundary", default_boundary(run.values)) or 0.9
    draft.values["boundary"] = boundary / 1000 if boundary > 1 else boundary
    draft.values["family"] = A14B
    draft.note(
        "musubi-tuner trains one LoRA for both experts in a joint run; here each has its own."
    )
    return [run]


def _read_sampling(draft: Draft, keys: Keys, values: Values) -> None:
    sampling = keys.text("timestep_sampling", "sigma")
    scale = keys.number("sigmoid_scale", 1.0)
    if sampling == "uniform":
        values["shift"] = 1.0
    elif sampling != "shift" or scale != LOGISTIC:
        draft.note(
            f"timestep_sampling {sampling} draws sigmas from another curve; here they are uniform, warped by shift."
        )


def _read_network(draft: Draft, keys: Keys, values: Values) -> None:
    values["lora.rank"] = keys.whole("network_dim", 4, 1)
    values["lora.alpha"] = keys.number("network_alpha", 1.0)
    values["lora.dropout"] = keys.number("network_dropout", 0.0)
    module = keys.text("network_module", "networks.lora_wan")
    if not module.endswith("lora_wan"):
        draft.note(f"network_module is {module}: a LoRA takes its place.")
    for word in keys.words("network_args"):
        if word == NO_FEED_FORWARD:
            values["lora.targets"] = list(ATTENTION)
        else:
            draft.note(
                f"network_args {word:.60}: set lora.targets for layers; the rest has no place."
            )


def _read_optimizer(draft: Draft, keys: Keys, values: Values) -> Values:
    ours = our_optimizer(keys.text("optimizer_type"))
    if ours.note:
        draft.note(ours.note)
    pairs = (word.partition("=") for word in keys.words("optimizer_args"))
    settings: dict[str, str] = {name: value for name, _, value in pairs}
    inner = Keys(settings, f"optimizer_args of {keys.where}")
    values |= {
        "optimizer.name": ours.name,
        "optimizer.weight_decay": inner.number("weight_decay", 0.01),
        "optimizer.beta2": second_beta(inner.raw("betas")),
    }
    clip = keys.number("max_grad_norm", 1.0)
    values["optimizer.clip"] = clip or 1e6
    if not clip:
        draft.note(NO_CLIP)
    for key, value in inner.left().items():
        draft.leave([f"optimizer_args {key}={value}: the optimizer here has no such value"], [])
    rate = keys.number("learning_rate", 2e-6)
    return {"rate": REPLACEMENT_RATE if ours.finds_rate else rate}
