"""docs/recipes.md: which received recipes hold on the miniature, with the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .recipe_claims import (
    ERROR,
    HIGH,
    HOLDS,
    LOW,
    MISSING,
    NOT,
    PATTERN,
    UNTOLD,
    Verdict,
    of_leading,
)
from .recipe_images import JUDGED_PICTURES
from .recipe_lab import kept, kept_without
from .recipe_motion import PRESETS, of_motion
from .recipe_noise import rate_ratio_on_noise
from .recipe_outcomes import APART, Measure, Outcome, Outcomes, effect, held_out, known, ratio, told
from .recipe_pairs import of_character, of_the_others
from .recipe_picture import draw
from .recipe_runs import FACTOR, JUDGED, LED, PICTURES, RUNS, SEEDS, TEACHES
from .recipe_stages import of_effect, of_general, of_images
from .report import table

ROOT = Path(__file__).absolute().parents[2]
PAGE = ROOT / "docs" / "recipes.md"
HEAD = """\
# Which received recipes hold on the miniature

Written by `make recipes`; {made} of {all} runs are there, made {when}. What trains and samples is the real ComfyUI over
HTTP with the shipped nodes, on the CPU; the networks are the [miniature family](../wan/miniature/MODEL_CARD.md), a
Wan 2.2 of a million parameters an expert. Every figure and every verdict is computed from the runs.

**What a verdict is worth.** It holds for networks 14,000 times smaller than those that the recipes are for, one motion
(*loop*), one look (*striped*), {seeds} seeds and {judged} judged clips a row ({pictures} pictures for image style).
Where a recipe fails here, it is no law; where it holds, it was not wrong in the one place where we could look. Nothing
here was tried on a 14B model.

**How it is decided.** Of a figure the mean over the seeds is given, and smallest and largest. Two settings are *told
apart* when their means differ by more than {apart:g} times what the seeds of either do; of settings that do not differ
at all, one pair in nine would pass that. *Cannot be told here*: not told apart, seeds that contradict each other, one
seed only, or a figure that means nothing at this size. Held-out losses are the lowest of the run, as a share of the
loss without the LoRA, for each expert its own: 0.46 is less than half.
"""
LENGTHS = """
## What was scaled

- **Rates:** every rate, bump and bound of every preset is multiplied with {factor:g}: where 14B networks take 1e-4,
  networks this small take 2e-3. One factor for all presets, so that their ratios are as received.
- **Steps:** motion 2,200, character 800, video effect 50 epochs with a look at each stage, image style 40 steps for
  each of {images} pictures (60 where the rate does not fall): as received. General video ran three tenths of its
  steps, with one micro-batch of 4 clips in place of 4 of one.
- **Comparisons** (who leads, 8 bits, order, share) are AdamW at rank 32, {loop} steps of 4 clips for the motion and
  {look:,} for the look, both rates 2e-3 unless said; 4 to 1 is 3.2e-3 and 0.8e-3, so that the sum is the same.
- **Clips:** 28 that teach and 12 of known motions as regularisation; 4 are held out. Pictures: none as
  regularisation, 2 held out, and the miniature's text-to-video network alone, for an image-to-video network is given
  the picture.
- **The motion's effect** is the path error: how far, root mean square over the frames, the shape is from where a loop
  would have it. **The look's** is the pattern: amplitude of the stripes over the second half of the frames.

## Limits

Tiny networks, one motion, one look, one dataset of each, two seeds, few judged clips, one factor on the rates: a
preset whose best rate is another one here is judged at the wrong place. The miniature's experts come from one base
and were trained with a quarter (high) and a half (low) of the captions silent about the motion, which decides how
much of a motion each of them makes; the real ones were trained otherwise. Length extension needs radial attention and
was not tried.

To go on after an end, or to do the missing runs: `make recipes`; to begin anew, delete the folder that it names. The
page alone, from what is kept: `python3 dev/environment.py run benchmarks miniature.recipe_page`.
"""


LENGTH = Verdict(
    "Length extension: 100 epochs make videos two to four times as long",
    UNTOLD,
    "It needs radial attention and a loss at two lengths, which the trainer does not have yet.",
)


def main() -> None:
    """Writes the page and its picture from what is kept."""
    found, dates = outcomes()
    on_noise = {name: rate_ratio_on_noise(name) for name in PRESETS}
    draw(found, on_noise, PAGE.with_suffix(".png"))
    beside = PAGE.with_name(f".{PAGE.name}")
    beside.write_text(page(found, dates, on_noise), encoding="utf-8")
    beside.replace(PAGE)
    print(PAGE.relative_to(ROOT))


def outcomes() -> tuple[Outcomes, list[str]]:
    """What is kept of all runs, and the days on which they were made."""
    by_name: dict[str, list[dict]] = {}
    for run in RUNS:
        if (outcome := kept(run)) is not None:
            by_name.setdefault(run.name, []).append(outcome)
    dates = sorted({o["date"] for each in by_name.values() for o in each})
    return Outcomes(by_name, kept_without() or {}), dates


def verdicts(found: Outcomes, on_noise: dict[str, float]) -> dict[str, list[Verdict]]:
    """All of them, by the section of the page."""
    return {
        "Who leads": [*of_leading(found), of_character(found)],
        "The presets of motion": of_motion(found, on_noise),
        "Video effect, general video, length": [*of_effect(found), of_general(found), LENGTH],
        "Image style": of_images(found),
        "Optimizer, alpha, order and share": of_the_others(found),
    }


def page(found: Outcomes, dates: Sequence[str], on_noise: dict[str, float]) -> str:
    """The whole page as markdown."""
    made = sum(map(len, found.by_name.values()))
    head = HEAD.format(
        made=made,
        all=len(RUNS),
        when=" to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "never",
        seeds=len(SEEDS),
        judged=JUDGED,
        pictures=JUDGED_PICTURES,
        apart=APART,
    )
    sections = verdicts(found, on_noise)
    every = [verdict for some in sections.values() for verdict in some]
    counts = ", ".join(
        f"{kind} {sum(v.verdict == kind for v in every)}"
        for kind in (HOLDS, NOT, UNTOLD, MISSING)
        if any(v.verdict == kind for v in every)
    )
    parts = [
        head,
        f"\n## In short\n\nOf {len(every)} received recipes: {counts}.",
        table(["recipe", "on the miniature"], [[v.recipe, _marked(v.verdict)] for v in every]),
        "\n![Every seed is a dot](recipes.png)",
    ]
    for title, some in sections.items():
        parts.append(f"\n## {title}\n")
        parts += [f"- **{v.recipe}: {v.verdict}.** {v.why}" for v in some]
        if title == "Who leads":
            parts.append(_led_tables(found))
    parts += ["\n## All runs\n", _all_runs(found)]
    parts.append(
        LENGTHS.format(
            factor=FACTOR, images=PICTURES, loop=TEACHES["loop"], look=TEACHES["striped"]
        ).rstrip()
    )
    return "\n".join(parts) + "\n"


def _marked(verdict: str) -> str:
    return f"**{verdict}**" if verdict == NOT else verdict


def _led_tables(found: Outcomes) -> str:
    """High led and low led on the motion and on the look."""
    return "\n".join(
        [
            "\nThe motion, loop:",
            _rows(found, [f"{lead} loop" for lead in LED], _MOTION_COLUMNS),
            "\nThe look, striped:",
            _rows(found, [f"{lead} striped" for lead in LED], _LOOK_COLUMNS),
        ]
    )


Columns = dict[str, tuple[Measure, str]]
_RATIOS: Columns = {
    "rate ratio": (ratio("rate"), ".2f"),
    "weight ratio": (ratio("weight"), ".2f"),
    "held-out, high": (held_out(HIGH), ".2f"),
    "held-out, low": (held_out(LOW), ".2f"),
}
_KNOWN: Columns = {
    "known motions: kind": (known("kind"), ".2f"),
    "known: path error px": (known("path_error_px"), ".1f"),
}
_MOTION_COLUMNS: Columns = {
    **_RATIOS,
    "kind": (effect("kind"), ".2f"),
    "path error px": (ERROR, ".1f"),
    **_KNOWN,
}
_LOOK_COLUMNS: Columns = {
    **_RATIOS,
    "pattern": (PATTERN, ".3f"),
    "look": (effect("look"), ".2f"),
    "kind": (effect("kind"), ".2f"),
    **_KNOWN,
}


def _rows(found: Outcomes, names: Sequence[str], columns: Columns) -> str:
    rows = [
        [name, *(told(found.of(name, measure), form) for measure, form in columns.values())]
        for name in names
    ]
    return table(["", *columns], rows + _bare_row(found, names[0], columns))


def _bare_row(found: Outcomes, name: str, columns: Columns) -> list[list[str]]:
    """What the miniature does without a LoRA, in the same columns."""
    lesson = name.rsplit(" ", 1)[-1]
    if lesson not in found.without.get("effect", {}):
        return []
    bare = {"effect": {"0": found.without["effect"][lesson]}, "known": found.without["known"]}
    cells = [
        "" if title in _RATIOS else format(measure(bare), form)
        for title, (measure, form) in columns.items()
    ]
    return [["without a LoRA", *cells]]


def _all_runs(found: Outcomes) -> str:
    """Every run with its own figures, seed by seed."""
    heads = [
        "run",
        "steps high, low",
        "rate ratio",
        "weight ratio",
        "lowest held-out high, low",
        "effect",
        "known kept",
    ]
    rows = [
        _run_row(f"{name}, {number}", outcome)
        for name, each in found.by_name.items()
        for number, outcome in enumerate(each)
    ]
    return (
        "Effect: path error in px for the motion, pattern for looks. Known kept: kind of known motions; of pictures, "
        "known looks. The number behind the name is the seed's.\n" + table(heads, rows)
    )


def _run_row(name: str, outcome: Outcome) -> list[str]:
    roles = [role for role in (HIGH, LOW, "single") if role in outcome["steps"]]
    both: Callable[[Callable[[str], str]], str] = lambda of: ", ".join(map(of, roles))  # noqa: E731
    last = outcome["effect"][str(max(map(int, outcome["effect"])))]
    shown = f"{last['pattern']:.3f}" if "pattern" in last else f"{last['path_error_px']:.1f} px"
    kept_known = last["known"] if "known" in last else outcome["known"]["kind"]
    return [
        name,
        both(lambda role: str(outcome["steps"][role])),
        _number(outcome["rate_ratio"]),
        _number(outcome["weight_ratio"]),
        both(lambda role: f"{held_out(role)(outcome):.2f}"),
        shown,
        f"{kept_known:.2f}",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
