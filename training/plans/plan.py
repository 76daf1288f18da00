"""What a run will do, as a value that a person can read, edit, save and compare."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...wan.families import A14B, AUTO, BOUNDARIES, ROLES, Role
from .checks import check_plan
from .settings import (
    AlphaPhases,
    ExpertSettings,
    LoraSettings,
    LossSettings,
    OptimizerSettings,
    PatternSettings,
    PhaseSettings,
    PruneSettings,
    RuleSettings,
    TimestepSettings,
)

PLAN_VERSION = 1
SEQUENCE = (
    PhaseSettings(train="high", steps=1000),
    PhaseSettings(train="low", steps=1500),
    PhaseSettings(train="joint", steps=200),
)
"""The received order of a sequential run."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """`steps` are optimizer steps over both experts; an iteration is one micro-batch."""

    version: int = PLAN_VERSION
    preset: str = "video effect"
    family: str = AUTO
    """`auto` plans for Wan 2.2 A14B; what is connected to the trainer decides."""
    train: str = "both"
    """Which of A14B's experts: both, high or low."""
    task: str = "i2v"
    boundary: float = BOUNDARIES["i2v"]
    """Sigma at and above which the high-noise expert works."""
    shift: float = 5.0
    """Warp of the noise schedule that training draws from."""
    timesteps: TimestepSettings = field(default_factory=TimestepSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    steps: int = 160
    batch: int = 1
    accumulate: int = 1
    order: str = "interleaved"
    """How two experts take turns: interleaved (`swap_every` steps each), joint (single
    steps, in the share of the high-noise expert), sequential (`phases`)."""
    swap_every: int = 10
    """Optimizer steps before the other expert takes its turn."""
    high_share: float | None = None
    """The high-noise expert's share of the steps that both share; None is what the shift gives it, 0.5 is half."""
    phases: tuple[PhaseSettings, ...] = SEQUENCE
    """Of a sequential run."""
    save_every: int = 100
    prune: PruneSettings = field(default_factory=PruneSettings)
    seed: int = 0
    caption_dropout: float = 0.0
    """Share of the samples that are trained without their caption."""
    allow_long: bool = False
    """Train longer than the preset's limit of epochs all the same."""
    held_out: int = 0
    """Clips that are not trained on: each expert's loss on them is measured before every checkpoint."""
    stop_on: tuple[str, ...] = ()
    """Findings that end the run; the others are told only."""
    rules: tuple[RuleSettings, ...] = ()
    """The monitors' rules that this run wants otherwise."""
    checkpoint_blocks: bool = True
    """Recompute each block in the backward pass instead of keeping its activations."""
    swap_blocks: int = 0
    """Blocks of each network whose weights stay in RAM and are brought when they are needed."""
    offload_activations: bool = False
    """Keep what the backward pass needs in RAM."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    patterns: tuple[PatternSettings, ...] = ()
    """Layers with other settings than `lora`."""
    alpha_phases: AlphaPhases = field(default_factory=AlphaPhases)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    high: ExpertSettings = field(default_factory=ExpertSettings)
    low: ExpertSettings = field(default_factory=ExpertSettings)
    notes: tuple[str, ...] = ()
    """Why the values are what they are, for people."""

    def __post_init__(self) -> None:
        check_plan(self)

    def roles(self) -> tuple[Role, ...]:
        """The experts that this plan trains."""
        roles = ROLES[A14B if self.family == AUTO else self.family]
        return (
            roles
            if self.train == "both"
            else tuple(r for r in roles if r in (f"{self.train}_noise", "single"))
        )

    def rates(self, role: Role) -> ExpertSettings:
        """A single model takes the settings of the expert that leads."""
        if role == "single":
            return max(self.high, self.low, key=lambda rates: rates.rate)
        return self.low if role == "low_noise" else self.high


PARTS: dict[str, type] = {
    "timesteps": TimestepSettings,
    "loss": LossSettings,
    "prune": PruneSettings,
    "lora": LoraSettings,
    "alpha_phases": AlphaPhases,
    "optimizer": OptimizerSettings,
    "high": ExpertSettings,
    "low": ExpertSettings,
}
"""The parts of a plan that have values of their own."""
LISTS: dict[str, type] = {
    "phases": PhaseSettings,
    "rules": RuleSettings,
    "patterns": PatternSettings,
}
"""The values of a plan that are lists of such parts."""
