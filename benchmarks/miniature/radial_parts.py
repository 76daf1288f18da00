"""The parts of docs/radial.md: words with figures filled in, and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...radial_attention.layout import density
from ...radial_attention.plan import TILE
from ...radial_attention.settings import BALANCED, PRESETS, ROWS, RadialSettings
from ...wan.miniature.world import FRAMES, SIDE_PX
from . import radial_text as words
from .radial_figures import KIND, PATH_PX, SIZES, Band, Measured, Verdict, bands, gain_at, grid_of
from .radial_runs import DENSE, JUDGED, SHIPPED, SPARSE, Row, layout, row_density, settings
from .report import table

SIZE, AT = "832 x 480", 81
STEPS = 20
TOLD = ("decay", "dense_layers", "dense_steps", "tile")
"""Of what a LoRA's file says of its training."""
RESTS_ON = {
    BALANCED: "our choice: decay of the authors' script for Wan 2.1, and their two dense blocks and steps of longer "
    "clips",
    "quality": "decay 0.8 and about a quarter of the steps, as in the authors' script for Wan 2.2 (11 of 40); a dense "
    "last step, which users of other ports found to help",
    "fast": "one block and one step, as in the authors' script for 4 steps",
    "paper": "the authors' script for Wan 2.1 at 69 frames: one block, 12 of 50 steps",
    "length extension": "two blocks and two steps, as in the authors' script for 161 frames, where decay is 1",
    "reference parity": "as *paper*, on the published block layout, which loses pairs of the rule: to compare with",
}
"""Scripts of github.com/mit-han-lab/radial-attention."""
TRAINED = {"": "no LoRA", "dense": DENSE, "radial": SPARSE}
"""How a table calls what a LoRA was trained with."""
PUBLISHED = {
    "768 x 1280, 69 frames": (
        RadialSettings(decay=0.2, dense_layers="0", dense_steps=12, reference=True),
        (1280, 768, 69),
        1.77,
    ),
    "768 x 1280, 161 frames": (
        RadialSettings(decay=1.0, dense_layers="0-1", dense_steps=2, reference=True),
        (1280, 768, 161),
        2.01,
    ),
}
"""Settings, size, and how many times as fast Wan 2.1 14B was in the tables of arXiv 2506.19852; 50 steps."""


def explained() -> list[str]:
    grid = grid_of(*SIZES[SIZE], AT)
    about = {"size": SIZE, "frames": AT, "preset": BALANCED}
    return [
        words.HEAD.format(
            high=grid.height,
            wide=grid.width,
            frame=grid.frame,
            latents=grid.frames,
            tokens=grid.tokens,
            pairs=grid.tokens**2,
            **about,
        ),
        words.PICTURE.format(
            alt="The mask, twice",
            wide=grid.width,
            wider=grid_of(*SIZES["1280 x 720"], AT).width,
            **about,
        ),
        _bands_table(),
        words.LONGER.format(rows=ROWS, keys=TILE),
    ]


def _bands_table() -> str:
    frames = (161 - 1) // 4 + 1
    columns = []
    for size in SIZES.values():
        frame = grid_of(*size, AT).frame
        for decay in (PRESETS[BALANCED].decay, PRESETS["quality"].decay):
            columns.append(bands(RadialSettings(decay=decay).rule(frame), frame, frames))
    heads = [
        f"{size}, decay {PRESETS[preset].decay:g}"
        for size in SIZES
        for preset in (BALANCED, "quality")
    ]
    rows = [
        [_distances(line[0]), *(_seen(band) for band in line)]
        for line in zip(*columns, strict=True)
    ]
    return table(["latent frames apart", *heads], rows)


def _distances(band: Band) -> str:
    return (
        f"{band.nearest} to {band.furthest}" if band.furthest > band.nearest else f"{band.nearest}"
    )


def _seen(band: Band) -> str:
    if band.tokens is None:
        return "whole"
    which = "" if band.every == 1 else f", if {band.every} divides the distance"
    return f"{band.tokens}{which}"


def gains(planned: str) -> list[str]:
    rows = []
    for name, size in SIZES.items():
        for frames in (81, 161, 321):
            grid = grid_of(*size, frames)
            usual = gain_at(PRESETS[BALANCED], grid, STEPS)
            quality = gain_at(PRESETS["quality"], grid, STEPS)
            few = gain_at(PRESETS[BALANCED], grid, 4)
            rows.append(
                [
                    name,
                    f"{frames}",
                    f"{grid.tokens:,}",
                    f"{usual.share:.0%}",
                    f"{usual.density:.3f}",
                ]
                + [
                    f"{value:.2f}"
                    for value in (usual.kernel, usual.whole, quality.whole, few.whole)
                ]
            )
    heads = [
        "size",
        "frames",
        "tokens",
        "attention's share of the work",
        "density",
        "one sparse call",
    ]
    heads += [f"{BALANCED}, {STEPS} steps", f"quality, {STEPS} steps", f"{BALANCED}, 4 steps"]
    about = {"size": SIZE, "frames": AT}
    return [
        words.GAIN.format(preset=BALANCED, dense=PRESETS[BALANCED].dense_first(4)),
        table(heads, rows),
        words.GAIN_NOTE.format(published=_published(), report=planned, **about),
    ]


def _published() -> str:
    lines = []
    for name, (chosen, size, reached) in PUBLISHED.items():
        found = gain_at(chosen, grid_of(*size), 50)
        lines.append(
            f"- Wan 2.1 14B, {name}, {chosen.describe()}: {reached:g} times as fast in the paper's table; at equal "
            f"speed of all products at most {found.whole:.2f} (density {found.density:.3f})."
        )
    return "\n".join(lines) + "\n"


def presets() -> str:
    rows = [
        [name, f"{preset.decay:g}", preset.dense_text(), RESTS_ON[name]]
        for name, preset in PRESETS.items()
    ]
    return words.PRESET + table(["preset", "decay", "what stays dense", "rests on"], rows)


def miniature(made: str) -> str:
    """Settings and measures; `made` is the day."""
    grid = layout(SPARSE, FRAMES)[1]
    shares = {name: density(layout(name, FRAMES)[0]) for name in (SHIPPED, SPARSE)}
    return words.MINIATURE.format(
        made=made,
        side=SIDE_PX,
        frame=grid.frame,
        latents=grid.frames,
        shipped=SHIPPED,
        shipped_text=_described(SHIPPED),
        shipped_share=shares[SHIPPED],
        sparse=SPARSE,
        sparse_text=_described(SPARSE),
        sparse_share=shares[SPARSE],
        left=left_of(shares[SPARSE], grid.frames),
        judged=JUDGED,
        one=1 / JUDGED,
        kind=KIND,
        path=PATH_PX,
    )


def left_of(share: float, frames: int) -> float:
    """Of the pairs that are neither of neighbouring frames nor with the first one, the share that is kept; share: of
    all pairs."""
    touched = sum(abs(i - j) > 1 and j > 0 for i in range(frames) for j in range(frames))
    return 1 - (1 - share) * frames**2 / touched


def _described(attention: str) -> str:
    chosen = settings(attention)
    assert chosen is not None
    return chosen.describe()


def counted(report: str) -> str:
    """The lines of a report that say what ran sparse, of both experts."""
    lines = [line for line in report.splitlines() if "calls of self-attention" in line]
    experts = ("high noise", "low noise")
    return "; ".join(f"{who}: {line.rstrip('.')}" for who, line in zip(experts, lines, strict=True))


def limits() -> str:
    """What it cannot do."""
    usual = PRESETS[BALANCED]
    least = next(
        n for n in range(1, AT, 4) if gain_at(usual, grid_of(*SIZES[SIZE], n), STEPS).density < 1
    )
    return words.LIMITS.format(
        whole=gain_at(usual, grid_of(*SIZES[SIZE], AT), STEPS).whole,
        least=least,
        frames=AT,
        size=SIZE,
        preset=BALANCED,
        steps=STEPS,
    )


def told_facts(found: Mapping[str, Any]) -> str:
    told = {role: [f"{key} {facts[key]!r}" for key in TOLD] for role, facts in found.items()}
    return "; ".join(f"{role}: {', '.join(facts)}" for role, facts in told.items())


def rows_table(rows: Sequence[Row], found: Mapping[Row, Measured]) -> str:
    """The figures of some rows."""
    heads = ["attention", "density", "kind", "path", "path error", "first frame", "to dense"]
    if any(row.asks_new for row in rows):
        heads = ["trained", *heads]
    lines = []
    for row in rows:
        scores, away = found[row].scores, found[row].away_db
        line = [TRAINED[row.trained]] if row.asks_new else []
        line += [row.sampled, f"{row_density(row):.3f}", f"{scores.kind:.2f}", f"{scores.path:.2f}"]
        line += [f"{scores.path_error_px:.1f} px", f"{scores.first_frame_db:.1f} dB"]
        lines.append([*line, "" if away is None else f"{away:.1f} dB"])
    return table(heads, lines)


def claims_table(judged: Sequence[Verdict]) -> str:
    """Each claim with what was reached."""
    rows = [[v.what, v.reached, "yes" if v.met else "**no**"] for v in judged]
    return table(["claim", "reached", f"within {KIND:g} and {PATH_PX:g} px"], rows)
