"""A run on disk: who it is, how far it came, and what it left."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..wan.errors import UserError
from ..wan.families import Role
from .checkpoints import CheckpointStore
from .events import CheckpointSaved, Event, Listener, StateChanged, StepDone
from .plans.changes import plan_differences
from .plans.plan import LISTS, TrainingPlan
from .plans.reading import plan_json, read_plan
from .records import (
    EVENTS,
    LOCK,
    LOG,
    append_line,
    read_record,
    write_record,
    write_text,
)
from .states import LIVE, State, require_transition
from .watch import Curves, stored_curves

PLAN = "plan.json"
LOOK_S = 1.0
"""How long to wait for a run's lock: who lists the runs holds it for a moment."""
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
    start: str = ""
    """Digest of the LoRAs that the run goes on from; empty for one that begins anew."""

    def job_id(self) -> str:
        """16 hex digits, equal for equal runs."""
        values = asdict(self) | {"plan": _what_is_trained(self.plan)}
        if not self.start:
            del values["start"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


# Words for people, what would end the run, what is kept of it, and where its memory lies.
_DOES_NOT_TRAIN = {
    "notes",
    "allow_long",
    "stop_on",
    "rules",
    "prune",
    "checkpoint_blocks",
    "swap_blocks",
    "offload_activations",
}


def _what_is_trained(plan: TrainingPlan) -> dict[str, object]:
    """The values that change the result, where they are not the default: a run keeps its id when a later version knows
    more of them."""
    usual = asdict(TrainingPlan())
    return {
        name: _differing(name, value, usual[name])
        for name, value in asdict(plan).items()
        if name not in _DOES_NOT_TRAIN and value != usual[name]
    }


def _differing(name: str, value: Any, usual: Any) -> object:  # noqa: ANN401 - as `asdict` gives it
    if name in LISTS:
        return [_unlike_default(LISTS[name], each) for each in value]
    if not isinstance(value, dict):
        return value
    return {inner: own for inner, own in value.items() if own != usual[inner]}


def _unlike_default(kind: type, values: Mapping[str, object]) -> dict[str, object]:
    usual = {field.name: field.default for field in fields(kind)}
    return {name: own for name, own in values.items() if own != usual[name]}


class Job:
    """A run and its folder: plan, events, log, checkpoints."""

    def __init__(self, folder: Path, identity: Identity, state: State, step: int) -> None:
        self.folder, self.identity = folder, identity
        self.state: State = state
        self.step = step
        self.changed = 0.0
        """When the state changed last, in seconds since 1970."""
        self.id = identity.job_id()
        self.store = CheckpointStore(folder, identity.name)
        self.listeners: list[Listener] = []
        """Hear every event once it is written down."""
        self.logger = logging.getLogger("tandem.training").getChild(self.id)
        self._lock = threading.RLock()
        self._claim = FileLock(folder / LOCK, timeout=LOOK_S, thread_local=False)
        self._log: logging.FileHandler | None = None

    @property
    def name(self) -> str:
        return self.identity.name

    @property
    def plan(self) -> TrainingPlan:
        return self.identity.plan

    @property
    def plot_file(self) -> Path:
        """Where the picture of the losses lies once the run has ended."""
        return self.folder / "loss.png"

    def listen(self, event: Event) -> None:
        """Appends an event to `events.jsonl` and passes it on."""
        line = {"event": type(event).__name__, "time": round(time.time(), 3), **asdict(event)}
        with self._lock:
            append_line(self.folder / EVENTS, json.dumps(line))
        if isinstance(event, (StepDone, CheckpointSaved)):
            self.step = event.step
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                # Who only looks on must not end a run.
                self.logger.exception("A listener of %s failed.", self.name)

    def set_state(self, state: State, message: str = "") -> None:
        """Raises ValueError for a change that the table of states does not have."""
        with self._lock:
            if state != self.state:
                require_transition(self.state, state)
            self.state, self.changed = state, round(time.time(), 3)
            write_record(
                self.folder,
                {
                    "id": self.id,
                    "state": state,
                    "step": self.step,
                    "message": message,
                    "changed": self.changed,
                    "identity": asdict(self.identity),
                },
            )
        # Parked and running follow each other with every prompt: the events have them.
        if state not in ("running", "parked"):
            parts = (self.name, state, self.step, self.plan.steps, message)
            self.logger.info("%s is %s at step %s of %s. %s", *parts)
        self.listen(StateChanged(state=state, step=self.step, message=message))

    def claim(self) -> None:
        """Makes the run this process' own, and opens its log; the claim ends with the process at the latest."""
        try:
            self._claim.acquire()
        except Timeout:
            raise UserError(
                f"{self.name} is being trained by another process.",
                "One process trains a run; others can look at it.",
                "Wait for it, stop it there, or choose another name.",
            ) from None
        try:
            self._open()
        except BaseException:
            # A full disk, say: nobody trains it, so that it can be queued again.
            self._claim.release()
            raise

    def _open(self) -> None:
        self.step = self.store.resumable_step()
        # What trains nothing may be another than when the run began: how much is kept, where memory lies.
        write_text(self.folder / PLAN, plan_json(self.plan))
        self._log = logging.FileHandler(self.folder / LOG, encoding="utf-8")
        self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.logger.addHandler(self._log)
        self.logger.setLevel(logging.INFO)

    def release(self) -> None:
        """Gives the claim back."""
        if self._log is not None:
            self.logger.removeHandler(self._log)
            self._log.close()
            self._log = None
        self.listeners.clear()
        self._claim.release()

    def losses(self) -> Curves:
        """(step, loss) of every step so far, by expert."""
        empty: Curves = {role: [] for role in self.plan.roles()}
        return empty | stored_curves(self.folder)

    def metadata(self, trigger: str) -> dict[str, object]:
        """What every LoRA of this run says of itself, beside expert, step, rank and alpha."""
        return {
            "name": self.name,
            "pair_id": self.id,
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
    record = read_record(folder)
    if record is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / PLAN, plan_json(identity.plan))
        return Job(folder, identity, "queued", 0)
    if record["id"] != identity.job_id():
        raise UserError(
            f"A run called {identity.name!r} exists already, and it is another one: "
            f"{'; '.join(_differences(identity, record['identity']))}.",
            "A name belongs to one plan, one dataset and one base model.",
            f"Choose another name, or move the folder {folder} away, and the run's files in the loras folder.",
        )
    state: State = "cut off" if record["state"] in LIVE else record["state"]
    job = Job(folder, identity, state, record["step"])
    # A finished run whose checkpoints were deleted has nothing to give: it is done again.
    if state == "done" and not job.store.steps():
        job.state = "cut off"
    return job


def _differences(identity: Identity, before: Mapping[str, object]) -> list[str]:
    now = json.loads(json.dumps(asdict(identity)))
    parts = ("dataset", "base", "vae", "text_encoder", "clip_vision", "start")
    changed = [part for part in parts if now[part] != before.get(part, "")]
    theirs = read_plan(json.dumps(before["plan"]))
    plans = plan_differences(identity.plan, theirs, but=_DOES_NOT_TRAIN)
    found = [f"another {part.replace('_', ' ')}" for part in changed] + plans
    return found or [f"it is called {before['name']}, or was planned by another version of Tandem"]
