"""musubi-tuner's arguments as a plan: a command for each expert, or the same as TOML.

Arguments as kohya-ss/musubi-tuner reads them at 30c658c (wan_train_network.py, training/parser_common.py,
training/trainer_base.py, training/timesteps.py, utils/train_utils.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...wan.families import A14B, SINGLE, Role
from ...wan.loss_weights import COSMAP
from ..data.dataset import Counts
from .documents import DATA, MUSUBI, Document
from .draft import Draft, RunDraft, Values, default_boundary, given_counts, merge_runs
from .keys import Keys, Reasons, sort_left
from .layers import noted_targets, patterns_in
from .musubi_data import read_data
from .musubi_export import LOGISTIC
from .names import REPLACEMENT_RATE, model_in, our_optimizer, second_beta
from .noise import set_curve, set_uniform
from .rates import CONSTANT, RESTARTS, our_schedule
from .words import MIN_SNR, NO_CLIP, RATE_ENDS, SAID, TOO_FEW_BLOCKS

WHY = {
    "caption_dropout": "it always shows the caption",
    "order": "each expert is a run of its own, and they learn nothing of one another",
    "swap_every": "each expert is a run of its own",
    "high_share": SAID,
    "phases": "each run has the steps of all its phases, in one piece",
    "boundary": "min_timestep and max_timestep are whole thousandths",
    "lora.targets": "its patterns for layers cannot say this",
    "lora.dtype": "its adapters are float32 or as mixed_precision says",
    "optimizer.name": "its nearest optimizer is named in the arguments",
    "save_every": "each run counts its own steps",
    **dict.fromkeys(("shift", "timesteps.distribution", "timesteps.mean", "timesteps.std"), SAID),
    "loss.weighting": "it has the weight cosmap alone",
    "swap_blocks": TOO_FEW_BLOCKS,
    "prune.last": "it keeps as many of the newest, and these are all",
    "prune.every": "it keeps the newest only",
    **dict.fromkeys(("high.targets", "low.targets"), "its patterns for layers cannot say this"),
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
        r"block_swap_.*|use_pinned_memory.*|offload_inactive_dit|disable_numpy_memmap",
        "memory is the host's",
    ),
    (r"img_in_txt_in_offloading", "memory is the host's"),
    (
        r"max_data_loader_n_workers|persistent_data_loader_workers|ddp_.*",
        "clips come from the cache",
    ),
    (r"sample_.*|one_frame", "previews are a setting of the trainer node"),
    (r"lr_.*", RATE_ENDS),
    (r"logit_mean|logit_std|mode_scale|sigmoid_scale", "this timestep_sampling does not use it"),
    (
        r"num_timestep_buckets|preserve_distribution_shape|guidance_scale",
        "sigmas are spread evenly over each expert's part of their curve",
    ),
    (r".*snr.*", MIN_SNR),
    (
        r"network_weights|base_weights.*|dim_from_weights|scale_weight_norms",
        "a run begins with fresh adapters",
    ),
    (
        r"save_last_.*_state|save_state.*|no_metadata|metadata_.*|training_comment|huggingface_.*|async_upload|wandb_.*",
        "checkpoints hold the whole state, and stay on this machine",
    ),
    (r"force_v2_1_time_embedding|show_timesteps", "the model decides"),
)


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
        **_read_memory(keys),
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
    _read_saving(keys, values)
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


def _read_memory(keys: Keys) -> Values:
    recompute, offload = (
        keys.flag(f"gradient_checkpointing{ending}") for ending in ("", "_cpu_offload")
    )
    return {
        "checkpoint_blocks": recompute,
        # It does nothing there without the other.
        "offload_activations": recompute and offload,
        "swap_blocks": keys.whole("blocks_to_swap", 0),
    }


def _read_saving(keys: Keys, values: Values) -> None:
    """How many of the newest checkpoints stay; 0 is all."""
    steps, every = keys.whole("save_last_n_steps"), keys.whole("save_every_n_steps", None, 1)
    epochs = keys.whole("save_last_n_epochs")
    values["prune.last"] = 0
    if steps is not None and every:
        values["prune.last"] = steps // every + 1
    elif epochs:
        values["prune.last"] = epochs


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
    scheme = keys.text("weighting_scheme", "none")
    values["loss.weighting"] = COSMAP if scheme == COSMAP else "none"
    if sampling == "sigma":
        _read_sigma_sampling(draft, keys, values, scheme)
    elif scheme not in ("none", COSMAP):
        draft.note(f"weighting_scheme {scheme} has no match: the loss is not weighted here.")
    _read_curve(draft, keys, values, sampling)
    if "preserve_distribution_shape" not in keys and sampling != "sigma" and "boundary" in values:
        draft.note("Its curve is squeezed into each expert's range there; here it is cut.")


def _read_curve(draft: Draft, keys: Keys, values: Values, sampling: str) -> None:
    scale = keys.number("sigmoid_scale", 1.0) or 0.0
    if sampling in ("uniform", "sigmoid", "logsnr"):
        values["shift"] = 1.0
    if sampling == "uniform" or (sampling == "shift" and scale == LOGISTIC):
        set_uniform(values)
    elif sampling in ("shift", "sigmoid"):
        set_curve(draft, values, scale, where="sigmoid_scale")
    elif sampling == "logsnr":
        # sigma = sigmoid(-x / 2) of a normal variable x.
        mean, width = _normal(keys)
        set_curve(draft, values, width / 2, mean=-mean / 2, where="logit_mean and logit_std")
    elif sampling != "sigma":
        set_uniform(values)
        draft.note(
            f"timestep_sampling {sampling} has no match: sigmas are uniform here, warped by shift."
        )


def _read_sigma_sampling(draft: Draft, keys: Keys, values: Values, scheme: str) -> None:
    """A place in the schedule, which begins with noise: the mean has the other sign."""
    if scheme == "logit_normal":
        mean, width = _normal(keys)
        set_curve(draft, values, width, mean=-mean, where="logit_mean and logit_std")
    else:
        set_uniform(values)
    if scheme not in ("none", "logit_normal", COSMAP):
        draft.note(f"weighting_scheme {scheme} has no match: sigmas are uniform, unweighted.")
    if "boundary" in values:
        draft.note(
            "timestep_sampling sigma takes min_timestep and max_timestep as places in the schedule; here they are "
            "the expert's sigmas."
        )


def _normal(keys: Keys) -> tuple[float, float]:
    mean, width = keys.number("logit_mean", 0.0), keys.number("logit_std", 1.0)
    return mean or 0.0, width or 0.0


def _read_network(draft: Draft, keys: Keys, values: Values) -> None:
    values["lora.rank"] = keys.whole("network_dim", 4, 1)
    values["lora.alpha"] = keys.number("network_alpha", 1.0)
    values["lora.dropout"] = keys.number("network_dropout", 0.0)
    module = keys.text("network_module", "networks.lora_wan")
    if not module.endswith("lora_wan"):
        draft.note(f"network_module is {module}: a LoRA takes its place.")
    patterns: dict[str, list[str]] = {"exclude_patterns": [], "include_patterns": []}
    for word in keys.words("network_args"):
        name, _, value = word.partition("=")
        if name in patterns:
            patterns[name] = patterns_in(value)
        else:
            draft.note(f"network_args {word:.60} has no place in a plan.")
    values["lora.targets"] = noted_targets(draft, "network_args", *patterns.values())


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
    rates: Values = {"rate": REPLACEMENT_RATE if ours.finds_rate else rate}
    return rates | _read_schedule(draft, keys)


def _read_schedule(draft: Draft, keys: Keys) -> Values:
    straight = keys.number("lr_scheduler_power", 1.0) == 1
    if custom := keys.text("lr_scheduler_type"):
        draft.note(f"lr_scheduler_type {custom:.40} is not here: the rate stays constant.")
        return {"schedule": CONSTANT, "warmup": 0}
    schedule = our_schedule(draft, keys.text("lr_scheduler"), straight=straight)
    cycles = keys.whole("lr_scheduler_num_cycles", 1, 1)
    values: Values = {"schedule": schedule, "warmup": _warmup(keys)}
    return values | ({"cycles": cycles} if schedule == RESTARTS else {})


def _warmup(keys: Keys) -> float:
    """Steps, or below 1 a share of the run."""
    text = str(keys.raw("lr_warmup_steps", 0)).strip()
    if not text.endswith("%"):
        return abs(keys.number("lr_warmup_steps", 0.0) or 0.0)
    share = Keys({"lr_warmup_steps": text[:-1]}, keys.where).number("lr_warmup_steps", 0.0)
    return min(abs(share or 0.0) / 100, 0.999)
