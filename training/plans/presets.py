"""The presets: received recipes as data, each labelled with what it rests on."""

from __future__ import annotations

from dataclasses import dataclass, field

from .settings import ExpertSettings, LoraSettings, OptimizerSettings


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A recipe. The budget is either `steps`, or `epochs` (each shows every clip once, over both experts)."""

    high: ExpertSettings
    low: ExpertSettings
    optimizer: OptimizerSettings
    lora: LoraSettings = field(default_factory=LoraSettings)
    steps: int | None = None
    epochs: int | None = None
    batch: int = 1
    accumulate: int = 1
    save_every: int | None = None
    save_every_epochs: int | None = None
    evidence: str


def _bumping(minimum: float, maximum: float) -> ExpertSettings:
    return ExpertSettings(rate=minimum, bump=minimum, minimum=minimum, maximum=maximum)


MOTION = ("motion 4x", "motion 3x")
EFFECT = "video effect"
IMAGE_STYLE = "image style"
LENGTH = "length extension"

_AUTOMAGIC = OptimizerSettings(name="automagic", beta2=0.999, weight_decay=1e-4, clip=1.0)
_ADAMW = OptimizerSettings(name="adamw")
_ADAMW_8BIT = OptimizerSettings(name="adamw 8-bit")
_MOTION_EVIDENCE = (
    "The high-noise expert (coarse motion) leads 3-5x. Evidence: one group's runs, not replicated; "
    "others report that the high expert overtrains easily. The bounds of the rates make that lead whatever the "
    "clips are (docs/recipes.md). Compare early checkpoints."
)

PRESETS: dict[str, Preset] = {
    "motion 4x": Preset(
        high=_bumping(2e-5, 5e-4),
        low=_bumping(5e-6, 1e-4),
        optimizer=_AUTOMAGIC,
        steps=2200,
        save_every=100,
        evidence=f"{_MOTION_EVIDENCE} The best checkpoint was usually at 1,800-2,000.",
    ),
    "motion 3x": Preset(
        high=_bumping(1.5e-5, 4e-4),
        low=_bumping(5e-6, 1e-4),
        optimizer=_AUTOMAGIC,
        steps=2200,
        save_every=100,
        evidence=f"The careful form of motion 4x. {_MOTION_EVIDENCE}",
    ),
    "character": Preset(
        high=ExpertSettings(rate=5e-5),
        low=ExpertSettings(rate=1e-4),
        optimizer=_ADAMW,
        steps=800,
        save_every=100,
        evidence="The low-noise expert (detail, identity) leads; 10-20 images or clips, 500-800 steps. "
        "Evidence: one group's runs, not replicated; the rates are our choice.",
    ),
    "image style": Preset(
        high=ExpertSettings(rate=1e-4, schedule="cosine with restarts"),
        low=ExpertSettings(rate=1e-4, schedule="cosine with restarts"),
        optimizer=_ADAMW_8BIT,
        lora=LoraSettings(rank=16, alpha=16.0),
        batch=2,
        evidence="40 steps per image, 500 to 3,500; 30-60 per image is the range. If the effect is weak, "
        "rank 32 or a rate of 4e-4. Three falls of the rate are our choice. Evidence: a practitioners' rule.",
    ),
    "video effect": Preset(
        high=ExpertSettings(rate=3e-5),
        low=ExpertSettings(rate=3e-5),
        optimizer=OptimizerSettings(name="adamw 8-bit kahan"),
        # Kahan summation has something to do in 16 bits only.
        lora=LoraSettings(dtype="bfloat16"),
        epochs=20,
        accumulate=2,
        save_every_epochs=5,
        evidence="15-25 epochs, never above 50: first signs at 5, visible at 10, strong at 15, stop at 20. "
        "Evidence: one published run of 20 clips and 18 epochs, on a single model (Wan 2.1).",
    ),
    "general video": Preset(
        high=ExpertSettings(rate=1e-4),
        low=ExpertSettings(rate=1e-4),
        optimizer=_ADAMW_8BIT,
        lora=LoraSettings(rank=64, alpha=32.0),
        steps=3000,
        accumulate=4,
        save_every=500,
        evidence="2,000-4,000 steps at 1e-4 to 3e-4; test at 1,000, 2,000 and 3,000. Evidence: practitioners' "
        "ranges, which spread by a factor of ten.",
    ),
    "length extension": Preset(
        high=ExpertSettings(rate=1e-4),
        low=ExpertSettings(rate=1e-4),
        optimizer=_ADAMW,
        lora=LoraSettings(
            rank=64,
            alpha=64.0,
            dropout=0.1,
            targets=(r"blocks\.\d+\.(self|cross)_attn\.(q|k|v|o)",),
        ),
        epochs=100,
        accumulate=4,
        save_every_epochs=10,
        evidence="100 epochs with radial attention and a loss at two lengths. Evidence: one published recipe.",
    ),
}
PRESET_NAMES = (
    "motion 4x",
    "motion 3x",
    "character",
    "image style",
    "video effect",
    "general video",
    "length extension",
)
