"""What the miniature is to show, each claim with its goal and what was reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from .figures import Figures
from .loras import MOTION, OVERTRAINED


@dataclass(frozen=True)
class Claim:
    what: str
    goal: str
    reached: str
    met: bool


def claims(found: Figures) -> list[Claim]:
    """Every claim, in the report's order."""
    return [
        *_of_the_base(found),
        *_of_the_motion(found),
        *_of_the_experts(found),
        *_of_the_rest(found),
    ]


def _of_the_base(found: Figures) -> list[Claim]:
    base, unknown = found.base, (found.held_out.kind, found.motion["none"].kind)
    return [
        Claim(
            "the VAE reconstructs",
            "28 dB",
            f"{fmean(found.vae_db):.1f} dB mean of {len(found.vae_db)} clips, {min(found.vae_db):.1f} worst",
            fmean(found.vae_db) >= 28,
        ),
        Claim(
            "the base obeys: kind, path, first frame",
            "0.90, 0.80, 28 dB",
            f"{base.kind:.2f}, {base.path:.2f}, {base.first_frame_db:.1f} dB",
            base.kind >= 0.9 and base.path >= 0.8 and base.first_frame_db >= 28,
        ),
        Claim(
            "the base does not know held-out motions: kind by their own words, by the trigger",
            "at most 0.10",
            f"{unknown[0]:.2f}, {unknown[1]:.2f}",
            max(unknown) <= 0.1,
        ),
    ]


def _of_the_motion(found: Figures) -> list[Claim]:
    none, both = found.motion["none"], found.motion["both"]
    lost = found.known["none"].kind - found.known[MOTION.name].kind
    return [
        Claim(
            "the LoRA teaches the motion: kind",
            "0.80",
            f"{both.kind:.2f} (path {both.path:.2f})",
            both.kind >= 0.8,
        ),
        Claim(
            "... its path error is at most half of the base's",
            f"{none.path_error_px / 2:.1f} px",
            f"{both.path_error_px:.1f} px",
            both.path_error_px <= none.path_error_px / 2,
        ),
        Claim(
            "... known motions lose little kind without the trigger",
            "at most 0.10",
            f"{lost:+.2f}",
            lost <= 0.1,
        ),
    ]


def _of_the_experts(found: Figures) -> list[Claim]:
    high, low = found.motion["high only"], found.motion["low only"]
    look_high, look_low = found.look["high only"], found.look["low only"]
    return [
        Claim(
            "motion: the high-noise LoRA alone keeps more than the low-noise one (path error)",
            "less",
            f"{high.path_error_px:.1f} against {low.path_error_px:.1f} px",
            high.path_error_px < low.path_error_px,
        ),
        Claim(
            "look: the low-noise LoRA alone keeps more than the high-noise one (pattern)",
            "more",
            f"{look_low.pattern:.3f} against {look_high.pattern:.3f}",
            look_low.pattern > look_high.pattern,
        ),
    ]


def _of_the_rest(found: Figures) -> list[Claim]:
    errors = [score.path_error_px for score in found.dial.values()]
    patterns = [score.pattern for score in found.look_dial.values()]
    return [
        Claim(
            "strength is a dial: path error over 0, 0.25, 0.5, 0.75, 1",
            "falls",
            _listed(errors, 1) + " px",
            errors == sorted(errors, reverse=True),
        ),
        Claim(
            "... and the look's pattern",
            "grows",
            _listed(patterns, 2),
            patterns == sorted(patterns),
        ),
        _of_overtraining(found),
    ]


def _of_overtraining(found: Figures) -> Claim:
    usual, long = found.character[MOTION.name], found.character[OVERTRAINED.name]
    kept = [found.known[lora.name].kind for lora in (MOTION, OVERTRAINED)]
    return Claim(
        "overtraining, 12 times too long, loses diversity or obedience",
        "kind of known motions by more than 0.10, or a fifth of the diversity",
        f"kind {_listed(kept, 2)}; diversity {usual.diversity:.3f}, {long.diversity:.3f}",
        kept[0] - kept[1] > 0.1 or long.diversity < 0.8 * usual.diversity,
    )


def _listed(values: Sequence[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)
