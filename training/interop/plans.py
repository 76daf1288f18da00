"""A plan as the files of another trainer, and such files as a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...wan.errors import UserError
from ..data.dataset import Counts, DatasetSettings
from ..plans.plan import TrainingPlan
from . import (
    ai_toolkit,
    ai_toolkit_export,
    diffusion_pipe,
    diffusion_pipe_export,
    musubi,
    musubi_export,
)
from .carried import (
    kept_lines,
    part_of,
    part_values,
    parts_line,
    plan_line,
    plan_of,
    plan_values,
    with_kept_parts,
    with_kept_plan,
)
from .documents import (
    AI_TOOLKIT,
    DATA,
    DATASET_FILE,
    DIFFUSION_PIPE,
    MUSUBI,
    TRAINERS,
    mark,
    own_documents,
    read_documents,
)
from .draft import Draft, Values, given_counts
from .kept import kept_lines_of, shown
from .words import WHY


class _Writer(Protocol):
    def __call__(
        self, plan: TrainingPlan, parts: Sequence[DatasetSettings], counts: Counts | None
    ) -> dict[str, str]: ...


_WRITERS: Mapping[str, _Writer] = {
    DIFFUSION_PIPE: diffusion_pipe_export.write,
    AI_TOOLKIT: ai_toolkit_export.write,
    MUSUBI: musubi_export.write,
}
_READERS = {
    DIFFUSION_PIPE: diffusion_pipe.read,
    AI_TOOLKIT: ai_toolkit.read,
    MUSUBI: musubi.read,
}
_WHY = {
    DIFFUSION_PIPE: WHY | diffusion_pipe.WHY,
    AI_TOOLKIT: WHY | ai_toolkit.WHY,
    MUSUBI: WHY | musubi.WHY,
}
OTHERWISE = {
    DIFFUSION_PIPE: "Each expert is a run of its own: start one after the other. Adapters are bfloat16 there. Videos "
    "are read at the model's frame rate, and the epoch's last incomplete batch is dropped. A falling rate falls over "
    "epochs, not over max_steps. timesteps.mean is part of its shift: times e^mean.",
    AI_TOOLKIT: "In one run both experts get as many steps there, split at sigma 0.875; a sequential plan is a run for "
    "each. Block swapping is a share of the layers there, and the average of the weights takes their place in "
    "the file. A repeat lengthens the epoch and does not add steps. A longer file is cut at a random place.",
    MUSUBI: "Each expert is a run of its own: start one after the other, after caching latents and captions with its "
    "two scripts (add --i2v there for image-to-video). Videos must have the model's frame rate, unless source_fps "
    "is set. Uniform sigmas are drawn from shift with sigmoid_scale 1.702, which is uniform within 0.01; "
    "timesteps.mean is part of discrete_flow_shift: times e^mean.",
}
"""What a trainer does in its own way, whatever the plan."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Files of another trainer, and what they only hold in a comment."""

    trainer: str
    files: Mapping[str, str]
    kept: tuple[str, ...]
    """What no key of theirs holds, a line each, and why."""
    unread: str = ""
    """Why import does not take all files as one text; empty where it does."""

    def text(self) -> str:
        """All files as one text, which import reads as it is."""
        return _joined(self.files)

    def report(self) -> str:
        head = f"{self.trainer}: {', '.join(self.files)}. Set every /path/to/ in them."
        lines = [head, OTHERWISE[self.trainer], "Kept in a comment, because no key there holds it:"]
        lines += [f"  {line}" for line in self.kept or ("nothing",)]
        if self.unread:
            lines.append(f"Tandem Import Plan does not read this text back: {self.unread}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Import:
    """A plan out of another trainer's files, and all that is to be said of it."""

    trainer: str
    plan: TrainingPlan
    parts: tuple[DatasetSettings, ...]
    """How each folder was read there, once for each size."""
    understood: tuple[str, ...]
    notes: tuple[str, ...]
    ignored: tuple[str, ...]
    unknown: tuple[str, ...]
    epochs: float | None
    """The budget of each run, where it was counted in epochs."""

    def counts(self, clips: int) -> Counts | None:
        """How much an epoch shows of so many files; None when their number is not known."""
        return given_counts([part_values(part) for part in self.parts], clips)


def export_plan(
    plan: TrainingPlan,
    trainer: str,
    parts: Sequence[DatasetSettings] = (),
    counts: Counts | None = None,
) -> Export:
    """The plan for one of `TRAINERS`. `import_plan` of the files gives the plan back, and the parts."""
    if trainer not in TRAINERS:
        raise UserError(
            f"trainer is {trainer!r}.", f"It can be {', '.join(TRAINERS)}.", "Choose one of them."
        )
    files = _WRITERS[trainer](plan, parts, counts)
    # What the keys alone say, by the very code that will read them.
    draft = _READERS[trainer](own_documents(files, trainer), None, 0)
    values = plan_values(plan)
    line, names = plan_line(values, _guessed(draft, draft.values), draft.values)
    wanted = [part_values(part) for part in parts]
    data_line, data_names = parts_line(
        wanted, draft.parts if wanted else [], part_values(part_of({}))
    )
    files = _with_lines(files, line, data_line)
    return Export(
        trainer=trainer,
        files=files,
        unread=_unread(_joined(files)),
        kept=kept_lines_of(plan, draft.values, names, data_names, _WHY[trainer]),
    )


def _unread(text: str) -> str:
    try:
        read_documents([text])
    except UserError as error:
        return error.came
    return ""


def _joined(files: Mapping[str, str]) -> str:
    return "\n".join(f"{mark(name)}\n{text}" for name, text in files.items())


def _with_lines(files: Mapping[str, str], line: str, data_line: str) -> dict[str, str]:
    """The plan's comment in every main config, the dataset's in the last file."""
    lines = {name: [line] if name != DATASET_FILE else [] for name in files}
    lines[list(files)[-1]] += [data_line] if data_line else []
    return {name: "\n".join([*lines[name], text]) for name, text in files.items()}


def import_plan(texts: Sequence[str], *, clips: int = 0, counts: Counts | None = None) -> Import:
    """The plan that pasted texts say: main configs and datasets of one trainer, in any order.

    `clips` (files) or `counts` turns epochs into steps. Nothing that the texts name is opened.
    """
    documents = read_documents(texts)
    mains = {d.kind for d in documents if not d.kind.endswith(DATA)}
    if len(mains) != 1:
        raise _not_one(mains, [d.kind for d in documents])
    trainer = mains.pop()
    strangers = [d.name for d in documents if not d.kind.startswith(trainer)]
    documents = [d for d in documents if d.kind.startswith(trainer)]
    draft = _READERS[trainer](documents, counts, clips)
    if strangers:
        draft.note(f"{', '.join(strangers)} is not {trainer}'s and was not read.")
    visible = dict(draft.values)
    kept, rows = kept_lines((d.text for d in documents), draft)
    values = with_kept_plan(_guessed(draft, visible), kept, draft, visible)
    parts = with_kept_parts(draft.parts, rows, draft)
    return Import(
        trainer=trainer,
        plan=plan_of(values),
        parts=tuple(part_of(part) for part in parts),
        understood=tuple(f"{name} = {shown(value)}" for name, value in sorted(visible.items())),
        notes=tuple(draft.notes),
        ignored=tuple(draft.ignored),
        unknown=tuple(draft.unknown),
        epochs=draft.epochs,
    )


def _guessed(draft: Draft, visible: Values) -> Values:
    """What a plan says and no config does: what it is for."""
    preset = (
        "image style"
        if draft.images_only()
        else "video effect"
        if draft.epochs is not None
        else "general video"
    )
    guessed: Values = {"preset": preset, "notes": [f"Imported from {draft.trainer}."]}
    steps = visible.get("steps", 1)
    if "save_every" not in visible:
        guessed["save_every"] = min(100, steps)
    if "swap_every" not in visible:
        guessed["swap_every"] = max(1, min(10, steps // 20))
    return guessed


def _not_one(mains: set[str], kinds: list[str]) -> UserError:
    if mains:
        came = f"The text holds configs of {' and '.join(sorted(mains))}."
    else:
        came = f"The text holds only {', '.join(kinds)}, no training config."
    return UserError(
        came,
        "It is the training of one trainer, and its dataset beside it.",
        "Paste the main config into text, and the dataset's TOML into dataset_text.",
    )
