"""A run on disk: who it is, how far it came, and what it left."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from ..wan.errors import UserError
from ..wan.families import Role
from .checkpoints import CheckpointStore
from .events import CheckpointSaved, Event, StateChanged, StepDone
from .plan import TrainingPlan, plan_differences, plan_json, read_plan

State = Literal["queued", "running", "stopped", "done", "failed", "cut off"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What makes two runs the same: the name, the plan, and digests of everything the plan is applied to."""

    name: str
    plan: TrainingPlan
    dataset: str
    base: tuple[tuple[Role, str], ...]
    vae: str
    text_encoder: str
    clip_vision: str = ""

    def job_id(self) -> str:
        """16 hex digits, equal for equal runs."""
        # The plan's notes are words for people: to reword them makes no other run.
        values = asdict(replace(self, plan=replace(self.plan, notes=())))
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


class Job:
    """A run and its folder: plan, events, checkpoints, published files."""

    def __init__(self, folder: Path, identity: Identity, state: State, step: int) -> None:
        self.folder, self.identity = folder, identity
        self.state, self.step = state, step
        self.store = CheckpointStore(folder, identity.name)

    @property
    def name(self) -> str:
        return self.identity.name

    @property
    def plan(self) -> TrainingPlan:
        return self.identity.plan

    def listen(self, event: Event) -> None:
        """Appends an event to `events.jsonl`; a change of state also reaches `job.json`."""
        _append_line(
            self.folder / "events.jsonl",
            json.dumps({"event": type(event).__name__, **asdict(event)}),
        )
        if isinstance(event, (StepDone, CheckpointSaved)):
            self.step = event.step

    def set_state(self, state: State, message: str = "") -> None:
        self.state = state
        self.listen(StateChanged(state=state, step=self.step, message=message))
        record = {
            "id": self.identity.job_id(),
            "state": state,
            "step": self.step,
            "message": message,
        }
        _write_text(
            self.folder / "job.json",
            json.dumps({**record, "identity": asdict(self.identity)}, indent=2),
        )

    def losses(self) -> dict[Role, list[tuple[int, float]]]:
        """(step, loss) of every step so far, by expert; a step that was done twice counts as done last."""
        found: dict[int, tuple[Role, float]] = {}
        for line in _lines(self.folder / "events.jsonl"):
            if line.get("event") == "StepDone":
                found[line["step"]] = (line["role"], line["loss"])
        curves: dict[Role, list[tuple[int, float]]] = {role: [] for role in self.plan.roles()}
        for step in sorted(found):
            role, loss = found[step]
            curves[role].append((step, loss))
        return curves

    def metadata(self, trigger: str) -> dict[str, object]:
        """What every LoRA of this run says of itself, beside expert, step, rank and alpha."""
        return {
            "name": self.name,
            "pair_id": self.identity.job_id(),
            "trigger": trigger,
            "base": dict(self.identity.base),
            "dataset": self.identity.dataset,
            "boundary": self.plan.boundary,
            "shift": self.plan.shift,
            "plan": asdict(self.plan),
        }


def checked_name(name: str) -> str:
    """The name of a run, which becomes a folder and two files: no path may hide in it."""
    if not _NAME.fullmatch(name) or name.endswith((".", " ")):
        raise UserError(
            f"The run's name is {name!r}.",
            "It can have letters, digits, spaces, dots, dashes and underscores, and begins with a letter or digit: "
            "it becomes a folder under output/tandem and two files in the loras folder.",
            "Choose a plain name, for example mermaid_v1.",
        )
    return name


def open_job(root: Path, identity: Identity) -> Job:
    """The run of this identity below `root`: new, finished, or cut off and ready to go on.

    Raises `UserError` when another run has the name, and says what differs.
    """
    folder = root / checked_name(identity.name)
    record = _read_record(folder)
    if record is None:
        folder.mkdir(parents=True, exist_ok=True)
        _write_text(folder / "plan.json", plan_json(identity.plan))
        return Job(folder, identity, "queued", 0)
    if record["id"] != identity.job_id():
        raise UserError(
            f"A run called {identity.name!r} exists already, and it is another one: "
            f"{'; '.join(_differences(identity, record['identity']))}.",
            "A name belongs to one plan, one dataset and one base model.",
            f"Choose another name, or move the folder {folder} away, and the run's files in the loras folder.",
        )
    job = Job(folder, identity, "cut off", record["step"])
    # A finished run whose checkpoints were deleted has nothing to give: it is done again.
    if record["state"] != "running" and (record["state"] != "done" or job.store.steps()):
        job.state = record["state"]
    return job


def _differences(identity: Identity, before: Mapping[str, object]) -> list[str]:
    now = json.loads(json.dumps(asdict(identity)))
    parts = ("dataset", "base", "vae", "text_encoder", "clip_vision")
    changed = [part for part in parts if now[part] != before.get(part, "")]
    plans = plan_differences(identity.plan, read_plan(json.dumps(before["plan"])))
    found = [f"another {part.replace('_', ' ')}" for part in changed] + plans
    return found or [f"it is called {before['name']}, or was planned by another version of Tandem"]


def _read_record(folder: Path) -> dict | None:
    path = folder / "job.json"
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not JSON ({error}).",
            "It is written by Tandem, whole or not at all.",
            "Move the folder away.",
        ) from error


def _lines(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue  # what a run that was killed left of its last line
    return lines


def _append_line(path: Path, text: str) -> None:
    """What a killed run left of its last line stays a line of its own, and costs nothing else."""
    with path.open("a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(text.encode() + b"\n")


def _write_text(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
