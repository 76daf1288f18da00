"""ai-toolkit's YAML as a plan: one run for both experts, or one for each.

Keys as ostris/ai-toolkit reads them at 27a03a9 (toolkit/config_modules.py, toolkit/scheduler.py,
jobs/process/BaseSDTrainProcess.py, extensions_built_in/sd_trainer/SDTrainer.py).
"""

from __future__ import annotations

import math
from typing import Any

from ...wan.errors import UserError
from ...wan.families import A14B, BOUNDARIES, SINGLE, Role
from ...wan.lora.adapters import DEFAULT_TARGETS
from ...wan.loss_weights import NONE, X0
from ..data.dataset import Counts
from .ai_toolkit_data import read_data
from .ai_toolkit_export import BLOCKS
from .documents import AI_TOOLKIT, Document
from .draft import Draft, RunDraft, Values, merge_runs
from .experts import no_own_values
from .keys import Keys, Reasons, sort_left
from .names import ATTENTION, REPLACEMENT_RATE, model_in, our_optimizer, second_beta
from .noise import set_curve, set_uniform
from .rates import CONSTANT, RESTARTS, WARMED, halves, our_schedule
from .words import MIN_SNR, NO_CLIP, ONE_NETWORK, RATE_ENDS

FIXED_SHIFT = {A14B: 5.0, SINGLE: 3.0}
"""The shift behind timestep_type 'shift' (scheduler_config of wan22_5b_model.py, and of wan21.py)."""

WHY = {
    "lora.alpha": "alpha is the rank there, whatever linear_alpha says. For the same effect use the LoRA at strength "
    "alpha / rank",
    "lora.dtype": "its adapters are float32",
    "shift": "timestep_type can say 1 (linear, sigmoid) or its own fixed shift only",
    "timesteps.distribution": "timestep_type has sigmoid for every curve that is not uniform",
    "timesteps.mean": "timestep_type sigmoid has the mean 0",
    "timesteps.std": "timestep_type sigmoid has the width 1",
    "loss.weighting": "it has that of x0 alone, as t0_loss_target",
    "boundary": "it splits at 0.875, also for image-to-video",
    "order": "its experts take turns; which are in memory at a time is its own choice",
    "swap_every": "it counts micro-batches",
    "high_share": "both experts get as many steps there",
    "phases": "each run has the steps of all its phases, in one piece",
    "lora.targets": "it trains all linear layers of the blocks; only kinds of layers can be left out",
    "optimizer.name": "its nearest optimizer is named in the config",
    "prune.last": "it keeps as many of the newest, and these are all",
    "prune.every": "it keeps the newest only",
    "swap_blocks": "its offloading is a share of 40 blocks",
    "offload_activations": "it has offloading of weights alone",
    **dict.fromkeys(("lora.rank", "lora.dropout"), ONE_NETWORK),
    **{
        f"{expert}.{name}": ONE_NETWORK
        for expert in ("high", "low")
        for name in ("rate", "rank", "dropout", "beta2", "clip")
    },
    **dict.fromkeys(("high.alpha", "low.alpha"), "alpha is the rank there"),
    **dict.fromkeys(
        ("high.targets", "low.targets"), "only kinds of layers can be left out, in a run for all"
    ),
    **dict.fromkeys(
        ("high.schedule", "low.schedule"),
        "its rates are constant, linear or cosine, and a run has one for both experts",
    ),
    **dict.fromkeys(
        ("high.warmup", "low.warmup"),
        "only its constant rate has a warm-up, in a run one for both experts",
    ),
    **dict.fromkeys(("high.cycles", "low.cycles"), "its first restart is the end of the run"),
}

IGNORED: Reasons = (
    (r"type|training_folder|device|performance_log_every|sqlite_db_path", "the graph has its own"),
    (r"logging\..*|sample\..*|first_sample\..*", "previews are a setting of the trainer node"),
    (r"trigger_word", "captions hold the trigger; it is set in the dataset node"),
    (r"save\..*", "checkpoints are in half precision, with their state, and stay on this machine"),
    (r"model\..*", "the graph's loaders decide how the model is held"),
    (
        r"network\.(type|conv|conv_alpha|transformer_only|split_multistage_loras)",
        "a LoRA of linear layers",
    ),
    (r"network\..*", "fresh LoRA adapters are trained"),
    (r"train\.(min_snr_gamma|snr_gamma|learnable_snr_gos)", MIN_SNR),
    (r"train\.ema_config.*", "the average is saved beside the weights, and as it is"),
    (r"train\.lr_scheduler.*", RATE_ENDS),
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
        r"train\.(noise_offset|loss_type|.*_loss.*|.*velocity_equiv.*)",
        "the loss is the mean square of the velocity's error, weighted as loss.weighting says",
    ),
    (r"train\.optimizer_params\..*", "the optimizer here has no such value"),
)


def read(documents: list[Document], counts: Counts | None, clips: int) -> Draft:
    """What the YAMLs say; their steps are steps, whatever the number of clips and repeats."""
    del counts, clips
    draft = Draft(AI_TOOLKIT, documents)
    mains = [d for d in documents if d.kind == AI_TOOLKIT]
    runs = [_run(draft, document) for document in mains]
    apart = [run for run in runs if run.role != "single"]
    if len(runs) > 1 and len(apart) < len(runs):
        raise UserError(
            f"There are {len(mains)} ai-toolkit configs, and one of them is not of one expert alone.",
            "A plan is one run, or one for each of two experts (train_high_noise, train_low_noise).",
            "Paste the configs of one training.",
        )
    merge_runs(draft, runs, None)
    if len(runs) > 1:
        draft.values["order"] = "sequential"
    elif not apart and draft.values["family"] == A14B:
        draft.values |= {"order": "interleaved", "high_share": 0.5}
        draft.values |= halves(draft.values["high.warmup"])
    if not apart:
        draft.values |= no_own_values()
    return draft


def _run(draft: Draft, document: Document) -> RunDraft:
    keys = Keys(_process(draft, document), document.name)
    values: Values = {"seed": keys.seed("training_seed")}
    role = _read_model(draft, keys, values)
    per_step = _read_steps(draft, keys, values)
    _read_sigmas(draft, keys, values)
    rates = _read_optimizer(draft, keys, values)
    _read_network(draft, keys, values)
    steps = math.ceil((keys.whole("train.steps", 1000, 1) or 1) / per_step)
    saves = max(1, round((keys.whole("save.save_every", 1000, 1) or 1) / per_step))
    kept = keys.whole("save.max_step_saves_to_keep", 0) or 0
    values["prune.last"] = 0 if kept >= math.ceil(steps / saves) else kept
    _read_folders(draft, keys, values)
    draft.leave(*sort_left(keys, IGNORED))
    return RunDraft(
        role=role, where=document.name, values=values, rates=rates, steps=steps, save_steps=saves
    )


def _read_folders(draft: Draft, keys: Keys, values: Values) -> None:
    """Datasets count once: a second run's are those of the first."""
    own = Draft(AI_TOOLKIT, [])
    read_data(keys, own)
    values["caption_dropout"] = own.values["caption_dropout"]
    draft.leave(own.ignored, own.unknown)
    for note in own.notes:
        draft.note(note)
    if draft.parts and own.parts != draft.parts:
        draft.note(f"{keys.where} has other datasets; those of the first config are taken.")
    draft.parts = draft.parts or own.parts


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


def _read_model(draft: Draft, keys: Keys, values: Values) -> Role:
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
    share = keys.number("model.layer_offloading_transformer_percent", 1.0) or 0.0
    offloaded = keys.flag("model.layer_offloading")
    values["swap_blocks"] = round(BLOCKS * min(max(share, 0.0), 1.0)) if offloaded else 0
    if values["family"] != A14B or high == low:
        return "single"
    return "high_noise" if high else "low_noise"


def _read_steps(draft: Draft, keys: Keys, values: Values) -> int:
    """How many of their steps are one here: micro-batches, where the older key accumulates them."""
    accumulate = keys.whole("train.gradient_accumulation", 1, 1) or 1
    older = keys.whole("train.gradient_accumulation_steps", 1, -1) or 1
    per_step = max(1, older)
    if per_step > 1:
        draft.note(
            f"gradient_accumulation_steps = {older} counts micro-batches as steps: steps are divided by it."
        )
    values["accumulate"] = accumulate * per_step
    values["batch"] = keys.whole("train.batch_size", 1, 1)
    values["checkpoint_blocks"] = keys.flag("train.gradient_checkpointing", True)
    if switch := keys.whole("train.switch_boundary_every", None, 1):
        values["swap_every"] = max(1, round(switch / values["accumulate"]))
    return per_step


def _read_sigmas(draft: Draft, keys: Keys, values: Values) -> None:
    kind = keys.text("train.timestep_type", "sigmoid")
    if any(keys.flag(f"train.linear_timesteps{ending}") for ending in ("", "2")):
        kind = "weighted"
    values["shift"] = FIXED_SHIFT[values["family"]] if kind == "shift" else 1.0
    set_uniform(values)
    if kind == "sigmoid":
        set_curve(draft, values, 1.0, where="timestep_type")
    elif kind == "weighted":
        draft.note("Its weights by timestep have no match: sigmas are uniform and unweighted here.")
    elif kind not in ("linear", "shift"):
        draft.note(
            f"timestep_type {kind} has no match: sigmas are uniform here (shift 1). Shift 5 is usual for Wan 2.2."
        )
    favoured = keys.text("train.content_or_style", "balanced")
    if favoured != "balanced":
        draft.note(f"content_or_style {favoured} has no match: no end of the noise is favoured.")
    # The velocity's error times sigma is that of x0; their second key divides it out again.
    of_x0 = keys.flag("train.t0_loss_target") and not keys.flag("train.t0_velocity_equiv_weight")
    values["loss.weighting"] = X0 if of_x0 else NONE


def _read_network(draft: Draft, keys: Keys, values: Values) -> None:
    rank = keys.whole("network.linear", None, 1) or keys.whole("network.rank", None, 1)
    if rank:
        values |= {"lora.rank": rank, "lora.alpha": float(rank)}
    if keys.text("network.type", "lora").lower() != "lora":
        draft.note(f"network.type is {keys.text('network.type')}: a LoRA takes its place.")
    values["lora.dropout"] = keys.number("network.dropout", 0.0)
    left_out = keys.raw("network.network_kwargs.ignore_if_contains")
    values["lora.targets"] = list(ATTENTION if left_out in ("ffn", ["ffn"]) else DEFAULT_TARGETS)
    theirs = keys.raw("network.linear_alpha", keys.raw("network.alpha", rank))
    if rank and theirs != rank:
        draft.note(
            f"network.linear_alpha = {theirs!s:.20}: ai-toolkit takes the rank, {rank}, for Wan."
        )


def _read_optimizer(draft: Draft, keys: Keys, values: Values) -> Values:
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
    averaged = keys.flag("train.ema_config.use_ema")
    ema = keys.number("train.ema_config.ema_decay", 0.999)
    values["optimizer.ema"] = ema if averaged else 0.0
    rates: Values = {"rate": REPLACEMENT_RATE if ours.finds_rate else rate}
    rates |= _read_schedule(draft, keys)
    if automagic:
        names = {"bump": "lr_bump", "minimum": "min_lr", "maximum": "max_lr"}
        rates |= {name: params[theirs] for name, theirs in names.items()}
    return rates


def _read_schedule(draft: Draft, keys: Keys) -> Values:
    theirs = keys.text("train.lr_scheduler", CONSTANT)
    schedule = our_schedule(draft, theirs)
    if schedule == RESTARTS:
        # Its period is set to the run's steps, whatever the config says.
        schedule = "cosine"
    first, last = (
        keys.number(f"train.lr_scheduler_params.{end}_factor", default)
        for end, default in (("start", 1 / 3), ("end", 1.0))
    )
    if schedule == "linear" and (first or 0.0) <= (last or 0.0):
        draft.note("Its linear rate rises, from start_factor to end_factor; it is constant here.")
        schedule = CONSTANT
    warmup = keys.whole("train.lr_scheduler_params.num_warmup_steps", 1000)
    return {"schedule": schedule, "warmup": warmup if theirs == WARMED else 0}
