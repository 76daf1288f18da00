"""diffusion-pipe's main config as a plan: a TOML for each run, and a run for each expert.

Keys as tdrussell/diffusion-pipe reads them at 8f83dbf (train.py, models/wan/wan.py, models/base.py, utils/common.py).
"""

from __future__ import annotations

import re
from typing import Any

from ...wan.families import Role
from ..data.dataset import Counts
from .diffusion_pipe_data import CLIP_MODES, read_data
from .diffusion_pipe_export import UNSLOTH
from .documents import DATA, DIFFUSION_PIPE, Document
from .draft import Draft, RunDraft, Values, default_boundary, given_counts, merge_runs
from .keys import Keys, Reasons, sort_left
from .layers import noted_targets
from .names import REPLACEMENT_RATE, model_in, our_optimizer, second_beta
from .noise import set_curve, set_uniform
from .rates import CONSTANT, our_schedule
from .words import MIN_SNR, NO_CLIP, SAID, TOO_FEW_BLOCKS

WHY = {
    "lora.alpha": "alpha is always the rank there. For the same effect use the LoRA at strength alpha / rank",
    "lora.dtype": "its adapters are written as bfloat16",
    "seed": "it has no seed",
    "order": "each expert is a run of its own, and they learn nothing of one another",
    "swap_every": "each expert is a run of its own",
    "high_share": SAID,
    "phases": "each run has the steps of all its phases, in one piece",
    "lora.targets": "its pattern for the layers to leave out cannot say this",
    "optimizer.name": "its nearest optimizer is named in the config",
    "save_every": "each run counts its own steps",
    "task": "the model's files decide",
    "boundary": "a single model has none",
    **dict.fromkeys(("shift", "timesteps.distribution", "timesteps.mean", "timesteps.std"), SAID),
    "loss.weighting": "its loss weighs every sigma the same",
    "swap_blocks": TOO_FEW_BLOCKS,
    **dict.fromkeys(
        ("high.schedule", "low.schedule"),
        "its rates are constant, linear or cosine, without restarts",
    ),
    **dict.fromkeys(("high.cycles", "low.cycles"), "it has no restarts"),
    **dict.fromkeys(("high.alpha", "low.alpha"), "alpha is always the rank there"),
    **dict.fromkeys(("high.targets", "low.targets"), "its pattern for layers cannot say this"),
}

IGNORED: Reasons = (
    (r"output_dir|dataset|model\.(ckpt_path|transformer_path|llm_path)", "the graph has its own"),
    (r"model\.type|adapter\.type", "read"),
    (r".*eval.*", "there is no second dataset for measuring"),
    (r"pipeline_stages|partition_.*", "one device is trained on"),
    (
        r"(model\.|adapter\.)?(save_)?(transformer_|diffusion_model_)?dtype",
        "adapters are float32 unless lora.dtype says bfloat16",
    ),
    (r"model\.(cache_text_embeddings|text_encoder_fp8|guidance)", "captions are encoded once"),
    (
        r"disable_block_swap_.*|reentrant_activation_checkpointing|compile|map_num_proc|caching_batch_size",
        "memory and speed are the host's",
    ),
    (r"checkpoint_every_n_.*", "every checkpoint holds the whole state"),
    (r"steps_per_print|logging_steps|x_axis_examples|monitoring\..*", "only display"),
    (r"image_micro_batch_size_per_gpu", "a plan has one batch size"),
    (r"pseudo_huber_c", "the loss is the mean square of the velocity's error"),
    (r"model\.min_snr_gamma|model\.debiased_estimation_loss", MIN_SNR),
    (r"model\.flux_shift", "a plan has one shift for every size"),
    (r"model\.sigmoid_scale", "uniform sigmas have no width"),
    (r"adapter\.(init_from_existing|fuse_adapters)", "a run begins with fresh adapters"),
    (r"optimizer\.(eps|stabilize|gradient_release|beta2_half_life|kahan_sum)", "not a plan's"),
)


def read(documents: list[Document], counts: Counts | None, clips: int) -> Draft:
    """What the main configs and the dataset say."""
    draft = Draft(DIFFUSION_PIPE, documents)
    for document in documents:
        if document.kind == DIFFUSION_PIPE + DATA:
            read_data(document, draft)
    mains = [d for d in documents if d.kind == DIFFUSION_PIPE]
    if mains:
        counts = counts or given_counts(draft.parts, clips)
        runs = [_run(draft, document) for document in mains]
        merge_runs(draft, runs, counts)
        draft.values.setdefault("boundary", default_boundary(draft.values))
    return draft


def _run(draft: Draft, document: Document) -> RunDraft:
    keys = Keys(document.values, document.name)
    values: Values = {
        "batch": _batch(draft, keys),
        "accumulate": keys.whole("gradient_accumulation_steps", 1, 1),
        "caption_dropout": keys.number("uncond_fraction", 0.0),
        "swap_blocks": keys.whole("blocks_to_swap", 0),
        "loss.weighting": "none",
        **_read_checkpointing(keys),
    }
    role = _read_model(draft, keys, values)
    _read_adapter(draft, keys, values)
    rates = _read_optimizer(draft, keys, values)
    if mode := keys.text("video_clip_mode"):
        _set_clip_mode(draft, mode)
    samples = values["batch"] * values["accumulate"]
    examples = keys.whole("save_every_n_examples", None, 1)
    run = RunDraft(
        role=role,
        where=document.name,
        values=values,
        rates=rates,
        steps=keys.whole("max_steps", None, 1),
        epochs=keys.positive("epochs"),
        save_steps=max(1, examples // samples)
        if examples
        else keys.whole("save_every_n_steps", None, 1),
        save_epochs=keys.number("save_every_n_epochs"),
    )
    draft.leave(*sort_left(keys, IGNORED))
    return run


def _read_checkpointing(keys: Keys) -> Values:
    kind = keys.text("activation_checkpointing", "false").lower()
    return {"checkpoint_blocks": kind != "false", "offload_activations": kind == UNSLOTH}


def _batch(draft: Draft, keys: Keys) -> int:
    sizes = keys.raw("micro_batch_size_per_gpu", 1)
    if isinstance(sizes, list):
        numbers = [n[-1] for n in sizes if isinstance(n, list) and n and isinstance(n[-1], int)]
        draft.note(f"micro_batch_size_per_gpu differs by size ({sizes}); a plan has one batch.")
        return max(1, min(numbers, default=1))
    return keys.whole("micro_batch_size_per_gpu", 1, 1) or 1


def _read_model(draft: Draft, keys: Keys, values: Values) -> Role:
    kind = keys.text("model.type", "wan")
    if kind.lower() != "wan":
        draft.note(f"model.type is {kind}: Tandem trains Wan, and the values were found on {kind}.")
    names = [keys.text(f"model.{key}") for key in ("ckpt_path", "transformer_path")]
    found = model_in(*names)
    if found.task:
        values["task"] = found.task
    values["shift"] = keys.number("model.shift", 1.0)
    if keys.text("model.timestep_sample_method", "logit_normal") == "uniform":
        set_uniform(values)
    else:
        width = keys.number("model.sigmoid_scale", 1.0) or 0.0
        set_curve(draft, values, width, mean=0.0, where="model.sigmoid_scale")
    low, high = keys.number("model.min_t", 0.0) or 0.0, keys.number("model.max_t", 1.0) or 0.0
    if low <= 0 and high >= 1:
        return _role_by_name(draft, names, found.family)
    role: Role = "high_noise" if high >= 1 or (low > 0 and low + high > 1) else "low_noise"
    values["boundary"] = low if role == "high_noise" else high
    if low > 0 and high < 1:
        draft.note(
            f"{keys.where} trains sigma {low:g} to {high:g} only; here the {role} expert has all of its side."
        )
    return role


def _role_by_name(draft: Draft, names: list[str], family: str | None) -> Role:
    role = model_in(names[-1] or names[0]).role
    if role is None:
        if family:
            draft.values.setdefault("family", family)
        return "single"
    draft.note(
        "An expert was trained on all noise; here each is trained on its own side of the boundary."
    )
    return role


def _read_adapter(draft: Draft, keys: Keys, values: Values) -> None:
    kind = keys.text("adapter.type", "none")
    if kind != "lora":
        draft.note(f"The adapter's type is {kind}: a LoRA takes its place.")
    if (rank := keys.whole("adapter.rank", None, 1)) is not None:
        values |= {"lora.rank": rank, "lora.alpha": float(rank)}
    if keys.number("adapter.alpha") is not None:
        draft.note(
            "adapter.alpha is refused by diffusion-pipe, which takes the rank; so is done here."
        )
    values["lora.dropout"] = keys.number("adapter.dropout", 0.0)
    excluded = _excluded(keys.raw("adapter.exclude_modules"))
    values["lora.targets"] = noted_targets(draft, "adapter.exclude_modules", excluded)


def _excluded(pattern: object) -> list[str]:
    """PEFT takes one pattern for whole names, or a list of names' ends."""
    if isinstance(pattern, list):
        return [rf"(?:.*\.)?{re.escape(str(end))}" for end in pattern]
    return [str(pattern)] if pattern else []


def _read_optimizer(draft: Draft, keys: Keys, values: Values) -> Values:
    theirs = keys.text("optimizer.type", "adamw")
    ours = our_optimizer(theirs)
    if ours.note:
        draft.note(ours.note)
    values["optimizer.name"] = ours.name
    values["optimizer.weight_decay"] = keys.number("optimizer.weight_decay", 0.01)
    rate = keys.number("optimizer.lr", REPLACEMENT_RATE)
    if forced := keys.number("force_constant_lr"):
        rate = forced
        draft.note(f"force_constant_lr = {forced:g} is the rate.")
    rates: Values = {"rate": REPLACEMENT_RATE if ours.finds_rate else rate}
    rates |= _read_schedule(draft, keys, constant=bool(forced))
    clip = keys.number("gradient_clipping", 1.0)
    threshold = keys.number("optimizer.clip_threshold", 1.0)
    beta2 = keys.number("optimizer.beta2", 0.999)
    bounds = [
        keys.number(f"optimizer.{n}", d)
        for n, d in (("lr_bump", 1e-6), ("min_lr", 1e-7), ("max_lr", 1e-3))
    ]
    betas: Any = keys.raw("optimizer.betas")
    if ours.name == "automagic":
        values |= {"optimizer.clip": threshold, "optimizer.beta2": beta2}
        return rates | dict(zip(("bump", "minimum", "maximum"), bounds, strict=True))
    if not clip:
        draft.note(NO_CLIP)
    values |= {"optimizer.clip": clip or 1e6, "optimizer.beta2": second_beta(betas)}
    return rates


def _read_schedule(draft: Draft, keys: Keys, *, constant: bool) -> Values:
    schedule = our_schedule(draft, keys.text("lr_scheduler"))
    warmup = keys.whole("warmup_steps", 0)
    if constant:
        return {"schedule": CONSTANT, "warmup": 0}
    if schedule != CONSTANT and "max_steps" in keys:
        draft.note("The rate falls over all epochs there, and over the run's steps here.")
    return {"schedule": schedule, "warmup": warmup}


def _set_clip_mode(draft: Draft, theirs: str) -> None:
    ours = next((o for o, t in CLIP_MODES.items() if t == theirs), None)
    if ours is None:
        draft.note(
            f"video_clip_mode = {theirs} is not here: the beginning of each file takes its place."
        )
    for part in draft.parts:
        part["clip_mode"] = ours or "head"
