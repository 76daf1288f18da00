"""What is meant by a name that no plan has: the nearest name, that of a widget, or what other trainers call it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches

from .plan import PARTS, TrainingPlan

_RATES = ("high.rate", "low.rate")
_ALIASES: dict[str, tuple[str, ...]] = {
    # Widgets of Tandem Plan Form.
    "rank": ("lora.rank",),
    "alpha": ("lora.alpha",),
    "dropout": ("lora.dropout",),
    "rate_high": ("high.rate",),
    "rate_low": ("low.rate",),
    "epochs": ("steps",),
    "keep_checkpoints": ("prune.last",),
    # What other trainers call them.
    "learning_rate": _RATES,
    "lr": _RATES,
    "unet_lr": _RATES,
    "max_lr": ("high.maximum", "low.maximum"),
    "min_lr": ("high.minimum", "low.minimum"),
    "lr_high": ("high.rate",),
    "high_lr": ("high.rate",),
    "learning_rate_high": ("high.rate",),
    "lr_low": ("low.rate",),
    "low_lr": ("low.rate",),
    "learning_rate_low": ("low.rate",),
    "lr_scheduler": ("high.schedule", "low.schedule"),
    "lr_warmup_steps": ("high.warmup", "low.warmup"),
    "warmup_steps": ("high.warmup", "low.warmup"),
    "optimizer_type": ("optimizer.name",),
    "optimiser": ("optimizer.name",),
    "max_grad_norm": ("optimizer.clip",),
    "ema_decay": ("optimizer.ema",),
    "network_dim": ("lora.rank",),
    "network_rank": ("lora.rank",),
    "lora_rank": ("lora.rank",),
    "dim": ("lora.rank",),
    "network_alpha": ("lora.alpha",),
    "lora_alpha": ("lora.alpha",),
    "network_dropout": ("lora.dropout",),
    "target_modules": ("lora.targets",),
    "gradient_accumulation": ("accumulate",),
    "gradient_accumulation_steps": ("accumulate",),
    "batch_size": ("batch",),
    "train_batch_size": ("batch",),
    "micro_batch_size_per_gpu": ("batch",),
    "blocks_to_swap": ("swap_blocks",),
    "gradient_checkpointing": ("checkpoint_blocks",),
    "max_train_steps": ("steps",),
    "num_steps": ("steps",),
    "num_epochs": ("steps",),
    "max_train_epochs": ("steps",),
    "save_every_n_steps": ("save_every",),
    "save_steps": ("save_every",),
    "discrete_flow_shift": ("shift",),
    "flow_shift": ("shift",),
    "timestep_sampling": ("timesteps.distribution",),
    "weighting_scheme": ("loss.weighting",),
    "min_snr_gamma": ("loss.gamma",),
}
_IN_EPOCHS = ("epochs", "num_epochs", "max_train_epochs")


def field_names(kind: type) -> list[str]:
    """Of a part, or of the plan."""
    return [field.name for field in fields(kind)]


def all_names() -> list[str]:
    """Every value of a plan by its dotted name, but those that no person changes."""
    plain = [n for n in field_names(TrainingPlan) if n not in (*PARTS, "version", "notes")]
    return plain + [f"{part}.{n}" for part, kind in PARTS.items() for n in field_names(kind)]


def meant(name: str, where: str = "", here: Sequence[str] = ()) -> str:
    """`Is high.rate meant? ` for an unknown name, or nothing. `here` are the names that there are behind `where`, a
    part with its dot."""
    given = name.removeprefix(where)
    inner = given.rpartition(".")[2]
    key = inner.lower().replace("-", "_").replace(" ", "_")
    found = _known_as(key)
    own = [where + known.rpartition(".")[2] for known in found]
    own = [known for known in own if where and known.removeprefix(where) in here]
    found = own[:1] or found
    if not found:
        known = [where + each for each in here] or all_names()
        found = get_close_matches(name, known, 1) or get_close_matches(name, all_names(), 1)
    told = "".join(f"Is {first} meant? " for first in found[:1])
    told += "".join(f"Or {other}? " for other in found[1:2])
    if key in _IN_EPOCHS:
        told += "A plan counts steps; Tandem Plan Form and Tandem Auto Parameters take epochs. "
    return told


def _known_as(key: str) -> list[str]:
    """What other places call it, or a part's value without its part."""
    if key in _ALIASES:
        return list(_ALIASES[key])
    return [known for known in all_names() if known.partition(".")[2] == key]
