"""What a format has no key for: a comment line beside the keys, which import reads back.

The line holds a value, and what the visible keys alone would have said. A visible key that was changed since
therefore wins: the kept value is used only while the keys still say what they said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ...wan.errors import UserError
from ..data.dataset import DatasetSettings
from ..plans.plan import TrainingPlan
from ..plans.reading import plan_json, read_plan
from .draft import Draft, Values
from .experts import OWN
from .keys import MOST_REPEATS
from .tables import bounded

_LINE = re.compile(r"^# tandem: (\{.*\})\s*$", re.M)
_KINDS: dict[str, tuple[type, ...]] = {
    "Path": (str,),
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}
ALWAYS = ("preset", "save_every", "swap_every")
"""Kept, where no key says them, even when they are what import would guess: an edit may change the guess."""
TIED = (
    *((name, f"high.{own}", f"low.{own}") for name, own in OWN.items()),
    ("shift", "timesteps.distribution", "timesteps.mean"),
    ("order", "swap_every"),
)
"""Values that only mean something together: where a key of one was changed, the keys count for all of them."""
_MEMORY = {"swap_blocks": 0, "offload_activations": False}
"""What works only where blocks are computed again, and what it is without that."""


def plan_values(plan: TrainingPlan) -> Values:
    """The plan's values by dotted name, as JSON holds them."""
    values = json.loads(plan_json(plan))
    flat: Values = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": v for inner, v in value.items()}
        else:
            flat[name] = value
    return flat


def plan_of(values: Mapping[str, Any]) -> TrainingPlan:
    """The plan with these values; impossible ones are errors that name them."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        part, _, inner = name.rpartition(".")
        (nested.setdefault(part, {}) if part else nested)[inner] = value
    return read_plan(json.dumps(nested))


def part_values(settings: DatasetSettings) -> Values:
    """The settings as JSON holds them."""
    return {
        f.name: str(getattr(settings, f.name)) if f.name == "folder" else getattr(settings, f.name)
        for f in fields(DatasetSettings)
    }


def part_of(values: Mapping[str, Any]) -> DatasetSettings:
    """The settings with these values; the rest as usual."""
    return DatasetSettings(**{**values, "folder": Path(values.get("folder", ""))})


def plan_line(wanted: Values, guessed: Values, visible: Values) -> tuple[str, list[str]]:
    """(comment line, names in it) for a plan of which the visible keys say only `visible`."""
    without = _without_line(guessed, visible)
    names = [
        name
        for name, value in wanted.items()
        if name != "version"
        and (without[name] != value or (name in ALWAYS and name not in visible))
    ]
    kept = {n: wanted[n] for n in names}
    tied = [tie for name in names for tie in _tie(name)]
    seen = {n: visible[n] for n in tied if n in visible}
    return _line({"plan": kept, "seen": seen}), names


def _tie(name: str) -> tuple[str, ...]:
    return next((tie for tie in TIED if name in tie), (name,))


def _untouched(name: str, seen: Mapping[str, Any], visible: Values) -> bool:
    """Whether the keys still say what they said when `name` was kept."""
    if name not in visible:
        return True
    both = [tie for tie in _tie(name) if tie in seen and tie in visible]
    return name in both and all(seen[tie] == visible[tie] for tie in both)


def _without_line(guessed: Values, visible: Values) -> Values:
    return plan_values(TrainingPlan()) | guessed | visible


def parts_line(
    wanted: list[Values], visible: list[Values], usual: Values
) -> tuple[str, list[tuple[str, str]]]:
    """(comment line, (folder, name) of each value in it) for the dataset's folders."""
    rows, names = [], []
    for want, said in zip(wanted, visible, strict=True):
        kept = {n: v for n, v in want.items() if (usual | said).get(n, ...) != v}
        rows.append(
            {
                "folder": said["folder"],
                "keep": kept,
                "seen": {n: said[n] for n in kept if n in said},
            }
        )
        names += [(want["folder"], name) for name in kept]
    return _line({"dataset": rows}) if names else "", names


def _line(values: Mapping[str, Any]) -> str:
    return f"# tandem: {json.dumps(values, sort_keys=True)}"


def kept_lines(texts: Iterable[str], draft: Draft) -> tuple[dict[str, Any], list[Any]]:
    """The plan's line (`plan` and `seen`) and the dataset's rows, from the first text that has them."""
    plan: dict[str, Any] = {}
    rows: list[Any] = []
    for text in texts:
        for found in _LINE.finditer(text):
            try:
                line = json.loads(found.group(1))
                bounded(line, "The line", len(text))
            except (ValueError, RecursionError, UserError):
                draft.note("A line '# tandem: ...' is damaged and was not read.")
                continue
            if isinstance(line.get("plan"), dict) and not plan:
                plan = line
            if isinstance(line.get("dataset"), list) and not rows:
                rows = line["dataset"]
    return plan, rows


def with_kept_plan(
    guessed: Values, kept: Mapping[str, Any], draft: Draft, visible: Values
) -> Values:
    """The plan's values, with those of the comment where no visible key says otherwise; `guessed` is for
    what neither says."""
    seen = kept.get("seen")
    seen = seen if isinstance(seen, dict) else {}
    values = _without_line(guessed, visible)
    used = []
    for name, value in kept.get("plan", {}).items():
        if name not in values or name == "version":
            draft.note(f"The line '# tandem: ...' has {name}, which no plan has.")
        elif _untouched(name, seen, visible):
            values[name] = value
            used.append(name)
    if used:
        draft.note(f"From the line '# tandem: ...': {', '.join(used)}.")
    return _with_recomputing(values, draft, visible)


def _with_recomputing(values: Values, draft: Draft, visible: Values) -> Values:
    """Without checkpointing nothing can be swapped here: what a key asks for stands, and then what the line kept."""
    asked = [name for name in _MEMORY if values[name]]
    if values["checkpoint_blocks"] is not False or not asked:
        return values
    if any(visible.get(name) for name in asked):
        draft.note(f"{asked[0]} works block by block here: checkpoint_blocks is set for it.")
        return values | {"checkpoint_blocks": True}
    draft.note(
        f"{', '.join(asked)} is left out: it needs checkpoint_blocks, which a key turns off."
    )
    return values | _MEMORY


def with_kept_parts(parts: list[Values], rows: list[Any], draft: Draft) -> list[Values]:
    """The same for the dataset's folders, matched by place and by folder."""
    kinds = {f.name: _KINDS.get(str(f.type), ()) for f in fields(DatasetSettings)}
    return [
        _with_kept(part, rows[n] if n < len(rows) else None, kinds, draft)
        for n, part in enumerate(parts)
    ]


def _with_kept(
    part: Values, row: object, kinds: Mapping[str, tuple[type, ...]], draft: Draft
) -> Values:
    if not isinstance(row, dict) or row.get("folder") != part["folder"]:
        return part
    keep, seen = row.get("keep"), row.get("seen")
    if not isinstance(keep, dict) or not isinstance(seen, dict):
        return part
    merged = dict(part)
    for name, value in keep.items():
        kind = kinds.get(name, ())
        if (
            not isinstance(value, kind)
            or (isinstance(value, bool) and bool not in kind)
            or (name == "repeats" and not 0 < value <= MOST_REPEATS)
        ):
            draft.note(f"The line '# tandem: ...' has {name} = {value!r:.40}, which was not used.")
        elif name not in part or seen.get(name, ...) == part[name]:
            merged[name] = value
    return merged
