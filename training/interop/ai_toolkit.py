"""ai-toolkit's YAML: one run for both experts.

Keys as ostris/ai-toolkit reads them at 27a03a9 (toolkit/config_modules.py, jobs/process/BaseSDTrainProcess.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import yaml

from ...wan.errors import UserError
from ...wan.families import A14B, BOUNDARIES, SINGLE
from ..data.dataset import Counts, DatasetSettings
from ..plans.plan import TrainingPlan
from ..plans.settings import ExpertSettings
from .ai_toolkit_data import read_data, write_data
from .documents import AI_TOOLKIT, Document
from .draft import Draft, Values
from .keys import Keys, Reasons, sort_left
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

FIXED_SHIFT = {A14B: 5.0, SINGLE: 3.0}
"""The shift behind timestep_type 'shift' (scheduler_config of wan22_5b_model.py, and of wan21.py)."""

WHY = {
    "lora.alpha": "alpha is the rank there, whatever linear_alpha says. For the same effect use the LoRA at strength "
    "alpha / rank",
    "shift": "timestep_type can say 1 (linear) or its own fixed shift only",
    "boundary": "it splits at 0.875, also for image-to-video",
    "high.rate": "both experts have one rate there, the smaller; export each expert's plan alone for two rates",
    "low.rate": "both experts have one rate there, the smaller; export each expert's plan alone for two rates",
    "swap_every": "it counts micro-batches",
    "lora.targets": "it trains all linear layers of the blocks; only kinds of layers can be left out",
    "optimizer.name": "its nearest optimizer is named in the config",
}

IGNORED: Reasons = (
    (r"type|training_folder|device|performance_log_every|sqlite_db_path", "the graph has its own"),
    (r"logging\..*|sample\..*|first_sample\..*", "previews are a setting of the trainer node"),
    (r"trigger_word", "captions hold the trigger; it is set in the dataset node"),
    (r"save\..*", "every checkpoint is kept, in half precision and with its state"),
    (r"model\..*", "the graph's loaders decide how the model is held"),
    (
        r"network\.(type|conv|conv_alpha|transformer_only|split_multistage_loras)",
        "a LoRA of linear layers",
    ),
    (r"network\..*", "fresh LoRA adapters are trained"),
    (r"train\.(min_snr_gamma|snr_gamma|learnable_snr_gos)", MIN_SNR),
    (r"train\.ema_config.*", "checkpoints hold the weights themselves"),
    (r"train\.lr_scheduler.*", CONSTANT_RATE),
    (
        r"train\.(dtype|train_unet|train_text_encoder|noise_scheduler)",
        "adapters of the video model, in float32 unless lora.dtype says bfloat16",
    ),
    (r"train\.(unload_text_encoder|cache_text_embeddings)", "captions are encoded once"),
    (
        r"train\.(skip_first_sample|disable_sampling|force_first_sample)",
        "previews are a setting of the trainer node",
    ),
    (
        r"train\.(content_or_style|noise_offset|loss_type|.*_loss.*)",
        "the loss is the mean square of the velocity's error",
    ),
    (r"train\.optimizer_params\..*", "the optimizer here has no such value"),
)


def write(
    plan: TrainingPlan, parts: Sequence[DatasetSettings], counts: Counts | None
) -> dict[str, str]:
    """One YAML; both experts in one run."""
    del counts
    process: dict[str, Any] = {
        "type": "sd_trainer",
        "training_folder": "output",
        "device": "cuda:0",
        "training_seed": plan.seed % SEEDS,
        "network": _network(plan),
        "save": {
            "dtype": "float16",
            "save_every": plan.save_every,
            "max_step_saves_to_keep": max(4, math.ceil(plan.steps / plan.save_every)),
        },
        "datasets": write_data(parts, plan.caption_dropout),
        "train": _train(plan),
        "model": _model(plan),
    }
    config = {
        "job": "extension",
        "config": {"name": "tandem_lora", "process": [process]},
        "meta": {"name": "[name]", "version": "1.0"},
    }
    title = f"# Tandem's plan {plan.preset!r} for ai-toolkit. Set model.name_or_path and each folder_path."
    return {"config.yaml": f"{title}\n{_yaml(config)}"}


class _Dumper(yaml.SafeDumper):
    """Every text on one line: a line of its own could be read as a mark of ours."""


def _one_line(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if "\n" in text else None)


_Dumper.add_representer(str, _one_line)


def _yaml(config: dict[str, Any]) -> str:
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


def _network(plan: TrainingPlan) -> dict[str, Any]:
    network: dict[str, Any] = {
        "type": "lora",
        "linear": plan.lora.rank,
        "linear_alpha": plan.lora.rank,
    }
    if plan.lora.dropout:
        network["dropout"] = float(plan.lora.dropout)
    if plan.lora.targets == ATTENTION:
        network["network_kwargs"] = {"ignore_if_contains": ["ffn"]}
    return network


def _rates(plan: TrainingPlan) -> ExpertSettings:
    return min((plan.rates(role) for role in plan.roles()), key=lambda rates: rates.rate)


def _train(plan: TrainingPlan) -> dict[str, Any]:
    rates, settings = _rates(plan), plan.optimizer
    params: dict[str, Any] = {"weight_decay": float(settings.weight_decay)}
    if settings.name == "automagic":
        bounds = {"lr_bump": rates.bump, "min_lr": rates.minimum, "max_lr": rates.maximum}
        params |= {n: float(rates.rate if v is None else v) for n, v in bounds.items()}
        params |= {"clip_threshold": float(settings.clip), "beta2": float(settings.beta2)}
    else:
        params["betas"] = [0.9, float(settings.beta2)]
    train: dict[str, Any] = {
        "batch_size": plan.batch,
        "steps": plan.steps,
        "gradient_accumulation": plan.accumulate,
        "train_unet": True,
        "train_text_encoder": False,
        "gradient_checkpointing": plan.checkpoint_blocks,
        "noise_scheduler": "flowmatch",
        "timestep_type": "linear" if plan.shift == 1 else "shift",
        "optimizer": their_optimizer(AI_TOOLKIT, settings.name),
        "lr": float(rates.rate),
        "optimizer_params": params,
        "dtype": "bf16",
        "disable_sampling": True,
    }
    if settings.name != "automagic":
        train["max_grad_norm"] = float(settings.clip)
    if len(plan.roles()) > 1:
        train["switch_boundary_every"] = plan.swap_every * plan.accumulate
    return train


def _model(plan: TrainingPlan) -> dict[str, Any]:
    ending = "_i2v" if plan.task == "i2v" else ""
    task = plan.task.upper()
    if plan.roles() == ("single",):
        return {"name_or_path": f"/path/to/Wan2.1-{task}-14B-Diffusers", "arch": f"wan21{ending}"}
    return {
        "name_or_path": f"/path/to/Wan2.2-{task}-A14B-Diffusers",
        "arch": f"wan22_14b{ending}",
        "model_kwargs": {
            "train_high_noise": plan.train in ("both", "high"),
            "train_low_noise": plan.train in ("both", "low"),
        },
    }


def read(documents: list[Document], counts: Counts | None, clips: int) -> Draft:
    """What the YAML says; its steps are steps, whatever the number of clips and repeats."""
    del counts, clips
    draft = Draft(AI_TOOLKIT, documents)
    mains = [d for d in documents if d.kind == AI_TOOLKIT]
    if len(mains) > 1:
        raise UserError(
            f"There are {len(mains)} ai-toolkit configs.",
            "A plan is one run.",
            "Paste one of them.",
        )
    keys = Keys(_process(draft, mains[0]), mains[0].name)
    values = draft.values
    _read_model(draft, keys, values)
    _read_train(draft, keys, values)
    rank = keys.whole("network.linear", None, 1) or keys.whole("network.rank", None, 1)
    if rank:
        values |= {"lora.rank": rank, "lora.alpha": float(rank)}
    if keys.text("network.type", "lora").lower() != "lora":
        draft.note(f"network.type is {keys.text('network.type')}: a LoRA takes its place.")
    values["lora.dropout"] = keys.number("network.dropout", 0.0)
    if keys.raw("network.network_kwargs.ignore_if_contains") in ("ffn", ["ffn"]):
        values["lora.targets"] = list(ATTENTION)
    theirs = keys.raw("network.linear_alpha", keys.raw("network.alpha", rank))
    if rank and theirs != rank:
        draft.note(
            f"network.linear_alpha = {theirs!s:.20}: ai-toolkit takes the rank, {rank}, for Wan."
        )
    values["seed"] = keys.seed("training_seed")
    read_data(keys, draft)
    draft.leave(*sort_left(keys, IGNORED))
    return draft


def _process(draft: Draft, document: Document) -> dict[str, Any]:
    processes = document.values["config"]["process"]
    if not isinstance(processes, list) or not processes or not isinstance(processes[0], dict):
        raise UserError(
            f"config.process in {document.name} is {processes!r:.60}.",
            "It is a list with one training.",
            "Paste the whole file.",
        )
    if len(processes) > 1:
        draft.note(f"{document.name} has {len(processes)} processes; the first is read.")
    return processes[0]


def _read_model(draft: Draft, keys: Keys, values: Values) -> None:
    arch = keys.text("model.arch", "").lower()
    found = model_in(arch.replace("wan22_14b", "wan22_a14b"), keys.text("model.name_or_path"))
    if not arch.startswith("wan"):
        draft.note(
            f"model.arch is {arch or 'not given'}: Tandem trains Wan, and the values were found on another."
        )
    values["family"] = found.family or SINGLE
    i2v = "i2v" in arch
    values["task"] = "i2v" if i2v or (found.task == "i2v" and not arch) else "t2v"
    values["boundary"] = BOUNDARIES[values["task"]]
    if values["family"] == A14B and i2v:
        draft.note(
            "ai-toolkit splits image-to-video at 0.875; the model's own boundary, 0.9, is used here."
        )
    high = keys.flag("model.model_kwargs.train_high_noise", True)
    low = keys.flag("model.model_kwargs.train_low_noise", True)
    if values["family"] == A14B:
        values["train"] = "both" if high == low else "high" if high else "low"
    if values["family"] == A14B and high == low:
        draft.note(
            "ai-toolkit gives both experts as many steps; here the share follows from boundary and shift."
        )


def _read_train(draft: Draft, keys: Keys, values: Values) -> None:
    accumulate = keys.whole("train.gradient_accumulation", 1, 1) or 1
    # The older key counts each accumulated micro-batch as a step.
    older = keys.whole("train.gradient_accumulation_steps", 1, -1) or 1
    per_step = max(1, older)
    if per_step > 1:
        draft.note(
            f"gradient_accumulation_steps = {older} counts micro-batches as steps: steps are divided by it."
        )
    steps = keys.whole("train.steps", 1000, 1) or 1
    values["steps"] = math.ceil(steps / per_step)
    values["accumulate"] = accumulate * per_step
    values["batch"] = keys.whole("train.batch_size", 1, 1)
    saves = keys.whole("save.save_every", 1000, 1) or 1
    values["save_every"] = max(1, round(saves / per_step))
    values["checkpoint_blocks"] = keys.flag("train.gradient_checkpointing", True)
    if switch := keys.whole("train.switch_boundary_every", None, 1):
        values["swap_every"] = max(1, round(switch / values["accumulate"]))
    kind = keys.text("train.timestep_type", "sigmoid")
    values["shift"] = FIXED_SHIFT[values["family"]] if kind == "shift" else 1.0
    if kind not in ("linear", "shift"):
        draft.note(
            f"timestep_type {kind} has no match: sigmas are uniform here (shift 1). Shift 5 is usual for Wan 2.2."
        )
    _read_optimizer(draft, keys, values)


def _read_optimizer(draft: Draft, keys: Keys, values: Values) -> None:
    ours = our_optimizer(keys.text("train.optimizer", "adamw"))
    if ours.note:
        draft.note(ours.note)
    rate = keys.number("train.lr", 1e-6)
    params = {
        name: keys.number(f"train.optimizer_params.{name}", default)
        for name, default in (
            ("lr_bump", 1e-6),
            ("min_lr", 1e-7),
            ("max_lr", 1e-3),
            ("clip_threshold", 1.0),
            ("beta2", 0.999),
        )
    }
    clip = keys.number("train.max_grad_norm", 1.0)
    betas = keys.raw("train.optimizer_params.betas")
    automagic = ours.name == "automagic"
    decay = keys.number("train.optimizer_params.weight_decay", 0.0 if automagic else 0.01)
    values |= {
        "optimizer.name": ours.name,
        "optimizer.weight_decay": decay,
        "optimizer.beta2": params["beta2"] if automagic else second_beta(betas),
        "optimizer.clip": params["clip_threshold"] if automagic else clip or 1e6,
    }
    if not clip and not automagic:
        draft.note(NO_CLIP)
    for expert in ("high", "low"):
        values[f"{expert}.rate"] = REPLACEMENT_RATE if ours.finds_rate else rate
        if automagic:
            names = {"bump": "lr_bump", "minimum": "min_lr", "maximum": "max_lr"}
            values |= {f"{expert}.{name}": params[theirs] for name, theirs in names.items()}
