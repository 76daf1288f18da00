"""The parts of a plan that have values of their own: each a group of settings with its defaults."""

from __future__ import annotations

from dataclasses import dataclass

from ...wan.lora.adapters import DEFAULT_TARGETS

RULE_MEASURES = {
    "low overpowers": ("weight ratio", "low outgrows high"),
    "high too weak": ("high weight", "rate ratio"),
    "overtraining": ("held-out rise", "trained fall"),
    "loss settled": ("loss level", "least loss level", "loss drift"),
    "diverging": ("loss rise", "loss rise in errors"),
}
"""The monitors' rules, and the measures that each of them has a limit for."""
STOPPABLE = tuple(RULE_MEASURES)
"""What the monitors can find, and a run can end on."""
PHASES = ("high", "low", "joint")
"""What a phase of a sequential run trains."""
EXPERTS = ("both", "high", "low")
LEVELS = ("log", "warn", "stop")


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    rank: int = 32
    """Width of the two factors; the file grows with it."""
    alpha: float = 32.0
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    """Share of an adapter's inputs that is zeroed while training."""
    targets: tuple[str, ...] = DEFAULT_TARGETS
    """Patterns for whole layer names."""
    dtype: str = "float32"
    """What the factors are trained and saved in. In bfloat16 small updates need an optimizer with Kahan summation."""


@dataclass(frozen=True, kw_only=True)
class PatternSettings:
    """Other settings for the layers whose whole name matches `pattern`; None is as the expert has it. Of several that
    match a layer the last one counts, value by value."""

    pattern: str
    expert: str = "both"
    """Whose layers: both, high or low."""
    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None
    rate: float = 1.0
    """Factor on the expert's learning rate, and with automagic on its bump and bounds."""


@dataclass(frozen=True, kw_only=True)
class ExpertSettings:
    """One expert's learning rate, and where its LoRA differs from `lora`. With automagic every weight has its own
    rate, which starts at `rate`, moves by `bump` and stays between `minimum` and `maximum`."""

    rate: float = 1e-4
    bump: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    schedule: str = "constant"
    """How the rate moves over this expert's own steps; automagic moves it itself."""
    warmup: int = 0
    """Steps of this expert in which the rate rises to its full height."""
    cycles: int = 3
    """Falls from the full rate of `cosine with restarts`."""
    beta2: float | None = None
    """Another one than the optimizer's, for this expert."""
    clip: float | None = None
    """Another one than the optimizer's, for this expert."""
    rank: int | None = None
    """Another one than `lora.rank`, for this expert; so with the next three."""
    alpha: float | None = None
    dropout: float | None = None
    targets: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    name: str = "adamw"
    beta2: float = 0.999
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest gradient norm (AdamW) or update RMS (automagic)."""
    ema: float = 0.0
    """What a step keeps of the average of the weights, which is saved beside them (0.99 to 0.999); 0 keeps none."""


@dataclass(frozen=True, kw_only=True)
class PhaseSettings:
    """A part of a sequential run: one expert alone, or both in single steps, in the share of the high-noise expert."""

    train: str = "joint"
    steps: int = 1
    """Its length in relation to the others'; all together are scaled to the plan's steps."""


@dataclass(frozen=True, kw_only=True)
class TimestepSettings:
    """How noise levels are drawn before the plan's shift warps them; each expert draws from its own part."""

    distribution: str = "uniform"
    mean: float = 0.0
    """Of the normal variable whose sigmoid is drawn (logit-normal)."""
    std: float = 1.0
    """Of the same (logit-normal), or the scale within it (sigmoid)."""


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """A weight w(sigma) on the squared error of the velocity, 1 on average over what an expert draws."""

    weighting: str = "none"
    gamma: float = 5.0
    """Where `clamped snr` cuts the signal-to-noise ratio off."""


@dataclass(frozen=True, kw_only=True)
class AlphaPhases:
    """An alpha that moves phase by phase. An expert leaves a phase when its least share of the expert's steps is over,
    its gradients are stable and its loss improves no more."""

    alphas: tuple[float, ...] = ()
    """Of the phases in order, for example 8, 14, 20; empty leaves alpha as it is."""
    least: tuple[float, ...] = (0.3, 0.4)
    """Of the expert's steps, for every phase but the last."""
    stability: float = 0.47
    """Least mean of the last 50 shares of gradient entries that kept their sign. The received 0.47 holds hardly any run
    back: signs that are chance alone keep 0.5."""
    improvement: float = 0.005
    """A loss that falls by a smaller share than this over 200 steps improves no more."""
    fit: float = 0.005
    """R squared of the line through those losses below which the improvement is called noise; advice only."""
    targets: tuple[str, ...] = ()
    """Patterns for the layers whose alpha moves; empty is all that are trained."""


@dataclass(frozen=True, kw_only=True)
class RuleSettings:
    """A rule of the monitors as this run wants it."""

    rule: str
    level: str | None = None
    """log, warn or stop."""
    measure: str | None = None
    """Which of its limits `limit` replaces; needed where it has several."""
    limit: float | None = None
    armed_from: float | None = None
    """Share of the run before which it is silent, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class PruneSettings:
    """Which checkpoints stay. With 0 for both all do; the best, the last and those that a run can go on from always."""

    last: int = 0
    """The newest so many."""
    every: int = 0
    """Those at a multiple of so many steps."""
