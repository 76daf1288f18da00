"""diffusion-pipe's main config: a TOML for each run, and a run for each expert.

Keys as tdrussell/diffusion-pipe reads them at 8f83dbf (train.py, models/wan/wan.py, models/base.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...wan.families import Role
from ..data.dataset import Counts, DatasetSettings
from ..expert_turns import expert_steps
from ..plans.plan import TrainingPlan
from .diffusion_pipe_data import CLIP_MODES, read_data, write_data
from .documents import DATA, DIFFUSION_PIPE, Document
from .draft import Draft, RunDraft, Values, default_boundary, given_counts, merge_runs
from .keys import Keys, Reasons, sort_left
from .names import (
    ATTENTION,
    REPLACEMENT_RATE,
    model_in,
    our_optimizer,
    second_beta,
    their_optimizer,
)
from .toml_text import Row, toml_text
from .words import CONSTANT_RATE, MIN_SNR, NO_CLIP

NO_FEED_FORWARD = r".*\.ffn\..*"
ENDINGS: dict[Role, str] = {"high_noise": "_high", "low_noise": "_low", "single": ""}

WHY = {
    "lora.alpha": "alpha is always the rank there. For the same effect use the LoRA at strength alpha / rank",
    "seed": "it has no seed",
    "swap_every": "each expert is a run of its own",
    "lora.targets": "it trains all linear layers of the blocks; only whole kinds of layers can be left out",
    "optimizer.name": "its nearest optimizer is named in the config",
    "save_every": "each run counts its own steps",
    "task": "the model's files decide",
    "boundary": "a single model has none",
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
        r"blocks_to_swap|reentrant_activation_checkpointing|compile|map_num_proc|caching_batch_size",
        "memory and speed are the host's",
    ),
    (r"checkpoint_every_n_.*", "every checkpoint holds the whole state"),
    (r"steps_per_print|logging_steps|x_axis_examples|monitoring\..*", "only display"),
    (r"image_micro_batch_size_per_gpu", "a plan has one batch size"),
    (r"pseudo_huber_c", "the loss is the mean square of the velocity's error"),
    (r"model\.min_snr_gamma|model\.debiased_estimation_loss", MIN_SNR),
    (r"model\.(flux_shift|sigmoid_scale)", "the schedule is uniform, warped by shift"),
    (r"adapter\.(init_from_existing|fuse_adapters)", "a run begins with fresh adapters"),
    (r"optimizer\.(eps|stabilize|gradient_release|beta2_half_life|kahan_sum)", "not a plan's"),
    (r"warmup_steps|lr_scheduler", CONSTANT_RATE),
)


def write(
    plan: TrainingPlan, parts: Sequence[DatasetSettings], counts: Counts | None
) -> dict[str, str]:
    """Texts by file name: a config for each expert that the plan trains, and the dataset."""
    steps: dict[Role, int] = {r: number for r, number in expert_steps(plan).items() if number}
    files = {
        f"config{ENDINGS[role]}.toml": _config(plan, role, number, parts, counts)
        for role, number in steps.items()
    }
    return files | {"dataset.toml": write_data(parts)}


def _config(
    plan: TrainingPlan,
    role: Role,
    steps: int,
    parts: Sequence[DatasetSettings],
    counts: Counts | None,
) -> str:
    samples = plan.batch * plan.accumulate
    mode = CLIP_MODES.get(parts[0].clip_mode if parts else "head", "single_beginning")
    head: list[Row] = [
        ("output_dir", f"/path/to/output{ENDINGS[role]}", "set this"),
        ("dataset", "dataset.toml", "set the full path of the other file"),
        (
            "epochs",
            max(1000, steps * samples, round(steps * samples / counts.shown) if counts else 0),
            "only an upper bound: max_steps ends the run",
        ),
        ("max_steps", steps, ""),
        ("micro_batch_size_per_gpu", plan.batch, ""),
        ("pipeline_stages", 1, ""),
        ("gradient_accumulation_steps", plan.accumulate, ""),
        ("gradient_clipping", _clipping(plan), ""),
        ("warmup_steps", 0, ""),
        (
            "save_every_n_steps",
            max(1, round(plan.save_every * steps / plan.steps)),
            "of this run's own steps",
        ),
        ("activation_checkpointing", plan.checkpoint_blocks, ""),
        ("save_dtype", "bfloat16", ""),
        ("caching_batch_size", 1, ""),
        ("steps_per_print", 1, ""),
        ("video_clip_mode", mode, ""),
        ("uncond_fraction", float(plan.caption_dropout), "samples without their caption"),
    ]
    adapter: list[Row] = [
        ("type", "lora", ""),
        ("rank", plan.lora.rank, "alpha is the rank there"),
        ("dtype", "bfloat16", ""),
        ("dropout", float(plan.lora.dropout), ""),
    ]
    if plan.lora.targets == ATTENTION:
        adapter.append(("exclude_modules", NO_FEED_FORWARD, ""))
    return toml_text(
        f"Tandem's plan {plan.preset!r} for diffusion-pipe, {role.replace('_', ' ')}. Set every path.",
        {
            "": head,
            "model": _model(plan, role),
            "adapter": adapter,
            "optimizer": _optimizer(plan, role),
        },
    )


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
    rows += [
        ("dtype", "bfloat16", ""),
        ("timestep_sample_method", "uniform", ""),
        ("shift", float(plan.shift), ""),
    ]
    if role != "single":
        low, high = (plan.boundary, 1.0) if role == "high_noise" else (0.0, plan.boundary)
        rows += [("min_t", float(low), ""), ("max_t", float(high), "")]
    return rows


def _optimizer(plan: TrainingPlan, role: Role) -> list[Row]:
    rates, settings = plan.rates(role), plan.optimizer
    rows: list[Row] = [
        ("type", their_optimizer(DIFFUSION_PIPE, settings.name), ""),
        ("lr", float(rates.rate), ""),
    ]
    if settings.name == "automagic":
        rows += [
            ("min_lr", _or(rates.minimum, rates.rate), ""),
            ("max_lr", _or(rates.maximum, rates.rate), ""),
            ("lr_bump", _or(rates.bump, rates.rate), ""),
            ("clip_threshold", float(settings.clip), ""),
            ("beta2", float(settings.beta2), ""),
        ]
    else:
        rows += [("betas", [0.9, float(settings.beta2)], ""), ("eps", 1e-8, "")]
    return [*rows, ("weight_decay", float(settings.weight_decay), "")]


def _or(value: float | None, otherwise: float) -> float:
    return float(otherwise if value is None else value)


def _clipping(plan: TrainingPlan) -> float:
    # Automagic bounds each update itself; DeepSpeed takes 0 for no clipping.
    return 0.0 if plan.optimizer.name == "automagic" else float(plan.optimizer.clip)


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
        "checkpoint_blocks": keys.text("activation_checkpointing", "false").lower() != "false",
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
    if keys.text("model.timestep_sample_method", "logit_normal") != "uniform":
        draft.note(
            "It draws sigmas from a logit-normal curve; here they are uniform, warped by shift."
        )
    values["shift"] = keys.number("model.shift", 1.0)
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
    excluded = keys.raw("adapter.exclude_modules")
    if excluded == NO_FEED_FORWARD:
        values["lora.targets"] = list(ATTENTION)
    elif excluded:
        draft.note(f"adapter.exclude_modules = {excluded!r:.60}: set lora.targets for the same.")


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


def _set_clip_mode(draft: Draft, theirs: str) -> None:
    ours = next((o for o, t in CLIP_MODES.items() if t == theirs), None)
    if ours is None:
        draft.note(
            f"video_clip_mode = {theirs} is not here: the beginning of each file takes its place."
        )
    for part in draft.parts:
        part["clip_mode"] = ours or "head"
