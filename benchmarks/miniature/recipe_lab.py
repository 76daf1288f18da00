"""Trains the runs of the recipes in the real host and judges them. What is done is kept: a benchmark that was ended
goes on where it was, within a run too."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from ...dev import runs
from ...dev.client import HostClient
from ...dev.testing import Graph, ancestors, number_of
from ...dev.toy_clips import Lesson, write_dataset
from ...dev.toy_sampling import Lora
from ...training.checkpoints import STATE_FILE, lora_file_name
from ...wan.families import Role
from .judging import Judge
from .recipe_images import for_pictures, judged_pictures, write_pictures
from .recipe_runs import JUDGED, Run
from .teaching import WORKFLOW

BARE = "without_lora"
Outcome = dict[str, Any]
"""What is kept of a run: `outcome` says what it holds."""


def folder() -> Path:
    """Where runs and outcomes are kept, beside the other things that the development environment makes."""
    return Path(os.environ["TANDEM_HOME"]) / "recipes"


def kept(run: Run) -> Outcome | None:
    """What a run that was made and judged came to."""
    path = _file(run.key)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def kept_without() -> Outcome | None:
    """What the miniature does without any LoRA, once it has been judged."""
    path = _file(BARE)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def judge_without(judge: Judge) -> None:
    """Judges the miniature without a LoRA."""
    effect = {name: _effect(judge, Lesson(name), None) for name in ("loop", "striped")}
    effect["pictures"] = judged_pictures(judge.client, judge.base, None)
    _keep(BARE, {"effect": effect, "known": judge.known()._asdict()})


def make(run: Run, client: HostClient, base: Path, say: Callable[[str], None]) -> None:
    """Trains a run, or goes on with it, and judges its checkpoints."""
    client.run(training(run, base), timeout_s=3600)
    steps = runs.events(base, run.key, "StepDone")
    last = steps[-1]["steps"]
    found = figures(steps, runs.events(base, run.key, "HeldOut"))
    judge, lesson = Judge(client, base, JUDGED), Lesson(run.lesson)
    if run.pictures:
        found["effect"] = {
            str(step): judged_pictures(client, base, checkpoint_file(run, step, "single"))
            for step in (*run.looks, last)
        }
    else:
        found["effect"] = {
            str(step): _effect(judge, lesson, checkpoint(run, step)) for step in (*run.looks, last)
        }
        found["known"] = judge.known(checkpoint(run, last))._asdict()
    found["findings"] = sorted({f["rule"] for f in runs.events(base, run.key, "Finding")} - {""})
    _keep(run.key, found)
    for state in (base / "output" / "tandem" / run.key).glob(f"step_*/{STATE_FILE}"):
        # Most of a run's bytes, and nothing goes on with it.
        state.unlink()
    say(f"{run.key}: {found['effect'][str(last)]}")


def training(run: Run, base: Path) -> Graph:
    """The shipped graph up to its trainer, with this run's clips, preset and changes."""
    whole = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    trainer = number_of(whole, "Train both experts")
    graph = ancestors(whole, trainer)
    if run.pictures:
        folder_name = f"pictures_{run.pictures}"
        write_pictures(base / "input" / folder_name, run.pictures)
        graph = for_pictures(graph, folder_name)
    else:
        if not (clips := base / "input" / run.lesson).is_dir():
            write_dataset(clips, run.lesson)
        graph[number_of(graph, "Clips to learn from")]["inputs"]["folder"] = run.lesson
    graph[number_of(graph, "Plan of the run")]["inputs"] |= {
        "preset": run.preset,
        "epochs": float(run.epochs),
    }
    changes = graph[number_of(graph, "The same for tiny networks")]["inputs"]
    changes["changes"] = json.dumps({**run.changes, "seed": run.seed})
    graph[trainer]["inputs"]["name"] = run.key
    return graph


def checkpoint(run: Run, step: int) -> Lora:
    """The pair of a step. The published pair is the best by held-out loss, which may be another step's."""
    high, low = (checkpoint_file(run, step, role) for role in ("high_noise", "low_noise"))
    return Lora(high=high, low=low)


def checkpoint_file(run: Run, step: int, role: Role) -> str:
    """The LoRA of a step, as the host lists it."""
    return f"{run.key}/step_{step:06d}/{lora_file_name(f'{run.key}_{step:06d}', role)}"


def figures(steps: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> Outcome:
    """What a run's own events say: steps of each expert, ratios at the end, losses by expert.

    `loss` is the mean over each fifth of an expert's own steps; `held_out` lists (step, held out, trained on).
    """
    # A run that was killed has made the steps after its last checkpoint twice.
    steps = list({step["step"]: step for step in steps}.values())
    held_out = list({(e["role"], e["step"]): e for e in held_out}.values())
    roles = sorted({step["role"] for step in steps})
    own = {role: [s for s in steps if s["role"] == role] for role in roles}
    fifths = {
        role: [
            fmean(s["loss"] for s in mine[len(mine) * i // 5 : len(mine) * (i + 1) // 5])
            for i in range(5)
        ]
        for role, mine in own.items()
    }
    return {
        "steps": {role: len(mine) for role, mine in own.items()},
        "weight": {role: mine[-1]["weight"] for role, mine in own.items()},
        "rate": {role: mine[-1]["rate"] for role, mine in own.items()},
        "weight_ratio": steps[-1]["weight_ratio"],
        "rate_ratio": steps[-1]["rate_ratio"],
        "rate_ratios": [s["rate_ratio"] for s in steps[:: max(1, len(steps) // 200)]],
        "loss": fifths,
        "held_out": {
            role: [[e["step"], e["loss"], e["trained"]] for e in held_out if e["role"] == role]
            for role in roles
        },
    }


def _effect(judge: Judge, lesson: Lesson, lora: Lora | None) -> dict[str, float]:
    score = judge.look(lesson, lora) if lesson.is_look else judge.motion(lesson, lora)
    return score._asdict()


def _file(key: str) -> Path:
    return folder() / "outcomes" / f"{key}.json"


def _keep(key: str, found: Outcome) -> None:
    path = _file(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    beside.write_text(json.dumps(found | {"date": str(datetime.date.today())}), encoding="utf-8")
    beside.replace(path)
