"""docs/radial.md: what radial attention is, by pictures of our own code, and what it does to the miniature's clips."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...dev.client import HostClient
from ...dev.testing import Graph
from ...dev.toy_sampling import node
from ...nodes.radial_plot import radial_plot
from ...radial_attention.layout import density
from ...radial_attention.settings import BALANCED
from ...wan.miniature.layouts import TransformerSize
from ...wan.miniature.recipe.judge import score
from ...wan.miniature.world import FRAMES, SIDE_PX
from . import radial_text as words
from .radial_figures import (
    Measured,
    Verdict,
    followed,
    likeness_db,
)
from .radial_parts import (
    AT,
    STEPS,
    TRAINED,
    claims_table,
    counted,
    explained,
    gains,
    limits,
    miniature,
    presets,
    rows_table,
    told_facts,
)
from .radial_picture import draw_known, draw_limits, draw_taught
from .radial_runs import (
    DENSE,
    JUDGED,
    KNOWN,
    LONG,
    LONGER,
    ROWS,
    SHIPPED,
    SPARSE,
    TAUGHT,
    Made,
    Row,
    folder,
    kept,
    layout,
    trained_with,
)

ROOT = Path(__file__).absolute().parents[2]
PAGE = ROOT / "docs" / "radial.md"
PLANS = {
    "480p": {"width": 832, "height": 480, "frames": AT},
    "720p": {"width": 1280, "height": 720, "frames": 161},
    "miniature": {"width": SIDE_PX, "height": SIDE_PX, "frames": FRAMES},
}
"""What the plan node is asked for; the names are those of the pictures."""


def plan_pictures(client: HostClient, base: Path) -> None:
    """Asks the plan node in the host for its pictures and reports, and keeps both."""
    graph: Graph = {}
    for name, size in PLANS.items():
        graph[name] = node("TandemRadialPlan", preset=BALANCED, steps=STEPS, **size)
        graph[f"save {name}"] = node(
            "SaveImage", images=[name, 0], filename_prefix=f"radial/{name}"
        )
        graph[f"told {name}"] = node("PreviewAny", source=[name, 1])
    outputs = client.run(graph)["outputs"]
    place = folder() / "plans"
    place.mkdir(exist_ok=True)
    for name in PLANS:
        (image,) = outputs[f"save {name}"]["images"]
        source = base / "output" / image["subfolder"] / image["filename"]
        shutil.move(source, place / f"{name}.png")
    reports = {name: outputs[f"told {name}"]["text"][0] for name in PLANS}
    (place / "reports.json").write_text(json.dumps(reports), encoding="utf-8")


def main() -> None:
    """Writes the page and its pictures from what is kept."""
    made = {row: found for row in ROWS if (found := kept(row))}
    if lost := [row.key for row in ROWS if row not in made]:
        raise SystemExit(f"{len(lost)} rows are not made: {', '.join(lost)}. Run `make radial`.")
    for name in PLANS:
        shutil.copyfile(folder() / "plans" / f"{name}.png", _picture(name))
    reports = json.loads((folder() / "plans" / "reports.json").read_text(encoding="utf-8"))
    _draw_sparse(_picture("miniature_sparse"))
    draw_limits(_picture("limits"))
    draw_known(made, _picture("clips"))
    draw_taught(made, _picture("motion"))
    found = measured(made)
    facts = trained_with(folder() / "host")
    newest = max((folder() / "clips").glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    day = datetime.date.fromtimestamp(newest.stat().st_mtime).isoformat()
    text = page(found, {row: m.report for row, m in made.items()}, reports["480p"], facts, day)
    beside = PAGE.with_name(f".{PAGE.name}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(PAGE)
    for verdict in verdicts(found):
        print(f"{'met' if verdict.met else 'MISSED':7} {verdict.what}: {verdict.reached}")
    print(f"\n{PAGE.relative_to(ROOT)}")


def measured(made: Mapping[Row, Made]) -> dict[Row, Measured]:
    """Every row against what was asked, and against its dense twin of the same seeds."""
    found = {}
    for row, clips in made.items():
        twin = replace(row, sampled=DENSE)
        away = likeness_db(clips.clips, made[twin].clips) if twin != row else None
        found[row] = Measured(score(clips.clips, row.scenes)[0], away)
    return found


def verdicts(found: Mapping[Row, Measured]) -> list[Verdict]:
    """Whether sparse clips follow what is asked as well as dense ones."""
    judged = []
    for rows in (KNOWN, LONGER):
        dense = found[rows[0]].scores
        judged += [
            followed(f"{row.frames} frames, {row.sampled}, against dense", found[row].scores, dense)
            for row in rows[1:]
        ]
    usual = found[_taught("dense", DENSE)].scores
    return judged + [
        followed(
            f"loop trained {TRAINED[trained]}, sampled {sampled}, against trained and sampled dense",
            found[_taught(trained, sampled)].scores,
            usual,
        )
        for trained, sampled in (("radial", SPARSE), ("dense", SPARSE))
    ]


def _taught(trained: str, sampled: str) -> Row:
    (row,) = (row for row in TAUGHT if (row.trained, row.sampled) == (trained, sampled))
    return row


def page(
    found: Mapping[Row, Measured],
    reports: Mapping[Row, str],
    planned: str,
    metadata: Mapping[str, Any],
    made: str,
) -> str:
    """The whole page as markdown. reports: of Tandem Radial Calls; planned: of Tandem Radial Plan; metadata: of the
    LoRA that was trained with radial attention; made: the day."""
    parts = [*explained(), *gains(planned), presets(), words.PRESET_NOTE]
    parts += [
        limits(),
        miniature(made),
        rows_table(KNOWN, found),
        words.KNOWN_PICTURE.format(
            name=SHIPPED,
            harsh=SPARSE,
            shipped=found[KNOWN[1]].away_db,
            sparse=found[KNOWN[2]].away_db,
        ),
        "\n".join(f"- *{row.sampled}*: {counted(reports[row])}." for row in KNOWN[1:]),
        words.LONGER_CLIPS.format(long=LONG, short=FRAMES, latents=(LONG - 1) // 4 + 1),
        rows_table(LONGER, found),
        words.TAUGHT.format(sparse=SPARSE, metadata=told_facts(metadata)),
        rows_table(TAUGHT, found),
        words.TAUGHT_NOTE.format(
            dense=found[_taught("dense", DENSE)].scores.path,
            sparse=found[_taught("radial", SPARSE)].scores.path,
        ),
        words.CLAIMS,
        claims_table(verdicts(found)),
        words.END.format(
            layers=TransformerSize().layers, latents=(FRAMES - 1) // 4 + 1, judged=JUDGED
        ),
    ]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _picture(name: str) -> Path:
    return PAGE.with_name(f"radial_{name}.png")


def _draw_sparse(target: Path) -> None:
    """The plan node has no input for the tile, so its picture is drawn here."""
    from PIL import Image

    found, grid = layout(SPARSE, FRAMES)
    title = f"{SIDE_PX} x {SIDE_PX}, {FRAMES} frames, {SPARSE}: density {density(found):.3f}"
    Image.fromarray(radial_plot(found, grid, title)).save(target)
