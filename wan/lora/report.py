"""What a LoRA did to a network: the answer that every loaded file owes its user, as a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from ..errors import UserError
from ..families import Role
from .advice import ADVICE, Sign, signs_of_file, signs_of_stack
from .bases import LEGAL, Base, Fit, base_of_file, base_of_network, judge_base
from .files import tandem_metadata
from .header import LoraHeader
from .keys import HeaderMatch, Leftover, match_header
from .measure import UpdateSize
from .sizes import Shape
from .stack import expert_in_name

VERSION = 1
"""Of the JSON; a reader refuses another one."""
SHOWN = 4
"""Ranks and alphas that are named one by one."""

# Who writes keys of which layout, as `HeaderMatch.layout` names it.
WRITERS = {
    "diffusion_model.*": "Tandem, ai-toolkit, diffusion-pipe, LightX2V and ComfyUI",
    "diffusion_model.*, diffusers names": "SimpleTuner",
    "diffusion_model.transformer_1.*": "ai-toolkit, both experts in one file,",
    "diffusion_model.transformer_2.*": "ai-toolkit, both experts in one file,",
    "model.diffusion_model.*": "tools for whole checkpoints",
    "lora_unet_*": "musubi-tuner and kohya",
    "lora_unet_*, diffusers names": "kohya's scripts",
    "lora_unet__*": "VideoX-Fun",
    "lora_transformer_*, diffusers names": "OneTrainer",
    "lycoris_*": "LyCORIS",
    "lycoris_*, diffusers names": "SimpleTuner with LyCORIS",
    "transformer.*, diffusers names": "diffusers, finetrainers and SimpleTuner",
    "transformer_2.*, diffusers names": "diffusers, for its second expert,",
    "base_model.model.*": "PEFT",
    "pipe.dit.*": "DiffSynth-Studio",
    "pipe.dit2.*": "DiffSynth-Studio, for its second expert,",
    "bare names": "DiffSynth-Studio",
}


class Placement(NamedTuple):
    """Where a row of the stack puts a file."""

    file: str
    expert: Role
    reason: str
    """Why this expert."""
    strength: float = 1.0
    row: int = 0
    """Counted from 1; 0 without a row."""
    schedule: str = ""
    """As written; the strength multiplies it."""
    peak: float = 1.0
    """Largest absolute value of the schedule."""
    kind: str = ""
    """What the row says it is: speed, style, ..."""


@dataclass(frozen=True, kw_only=True)
class KeyGroup:
    """Keys of a file that do nothing here, of one cause."""

    cause: str
    detail: str
    """Of the example."""
    count: int
    example: str
    expected: bool = False
    """They have no place here and do no harm."""

    def text(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        if self.expected:
            return f"{self.count} keys have no place here: harmless{detail}, for example {self.example}"
        return f"{self.count} keys left over: {self.cause}{detail}, for example {self.example}"


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """One file on one expert."""

    file: str
    expert: Role
    reason: str
    """Why this expert."""
    strength: float
    layout: str
    """The spelling of the keys."""
    matched: int
    """Modules of the file that change this network."""
    total: int
    """Modules of the file for this expert; 0 when it has none for it."""
    ranks: tuple[int, ...] = ()
    alphas: tuple[float, ...] = ()
    groups: tuple[KeyGroup, ...] = ()
    row: int = 0
    """Counted from 1; 0 without a row."""
    schedule: str = ""
    peak: float = 1.0
    """Largest absolute value of the schedule, 1 without one."""
    kind: str = ""
    """What the row says it is: speed, style, ..."""
    forms: tuple[str, ...] = ("LoRA",)
    """LoRA, LoKr, LoHa, DoRA (LoRA), difference: every form of change in the file."""
    made_for: str = ""
    """The base model that metadata or shapes speak of; empty when none does."""
    fit: Fit = "not known"
    """Whether that is the model at hand."""
    remark: str = ""
    """What to expect when it is not."""
    expressions: tuple[str, ...] = ()
    """Regular expressions by which PEFT's settings give alpha or rank, and which are not followed."""
    trained_for: str = ""
    """high_noise or low_noise, as the keys or the metadata say."""
    named_for: str = ""
    """high_noise or low_noise, as the file's name says."""
    pair_id: str = ""
    content: str = ""
    """Equal for copies of one file; empty when the tensors were not read."""
    size: UpdateSize | None = None

    @property
    def fatal(self) -> tuple[KeyGroup, ...]:
        return tuple(group for group in self.groups if not group.expected)

    @property
    def whole(self) -> bool:
        return self.matched > 0 and not self.fatal

    @property
    def swapped(self) -> bool:
        """Its keys or its metadata say that it was trained for the other expert."""
        return {self.trained_for, self.expert} == {"high_noise", "low_noise"}

    @property
    def well(self) -> bool:
        """Nothing about it needs a second look."""
        return self.at_work and self.whole and "other expert" not in self.signs

    @property
    def at_work(self) -> bool:
        """It changes the network at one step at least."""
        zero = self.size is not None and self.size.zero
        return self.matched > 0 and self.strength != 0 and self.peak != 0 and not zero

    @property
    def meant_for(self) -> str:
        """The expert that it was made for: metadata first, then the file's name; may be empty."""
        return self.trained_for or self.named_for

    @property
    def signs(self) -> tuple[Sign, ...]:
        return signs_of_file(self)

    @property
    def verdict(self) -> str:
        """One phrase."""
        if self.total == 0:
            return "has nothing for this expert"
        if self.matched == 0:
            return "does nothing, no key matched"
        if not self.at_work:
            return "does nothing, " + (
                "its strength is 0" if self.strength == 0 or self.peak == 0 else "it is zero"
            )
        if self.fatal:
            return "fits in part"
        if "other expert" in self.signs:
            return "fits, but it was made for the other expert"
        return "fits, though it was made for another model" if self.fit in LEGAL else "fits"

    def text(self, *, advice: bool = True) -> str:
        """A paragraph: the verdict first, then numbers, what was left over, grouped by cause, and advice."""
        lines = [f"{self.file} -> {self.expert}: {self.verdict} ({self.reason})"]
        details = [self._numbers(), self._base(), self._size()]
        details += [group.text() for group in self.fatal]
        details += [f"it was trained for the {self.trained_for} expert"] if self.swapped else []
        details += [f"not followed: {', '.join(self.expressions)}"] if self.expressions else []
        details += [group.text() for group in self.groups if group.expected]
        details += [_advice(sign) for sign in self.signs if advice]
        return "\n".join(lines + [f"  {detail}" for detail in details if detail])

    def _numbers(self) -> str:
        if self.total == 0:
            return ""
        harmless = self.total - self.matched
        more = f" (the other {harmless} are harmless)" if self.whole and harmless > 0 else ""
        forms = f", {' and '.join(self.forms)}" if self.forms not in ((), ("LoRA",)) else ""
        schedule = f" times the schedule {self.schedule}" if self.schedule else ""
        writers = WRITERS.get(self.layout)
        return (
            f"{self.matched} of {self.total} modules matched{more}{forms}, rank {_listed(self.ranks)}, "
            f"alpha {_listed(self.alphas)}, strength {self.strength:g}{schedule}, keys {self.layout}"
            f"{f' as {writers} write them' if writers else ''}"
        )

    def _base(self) -> str:
        # A remark on another model names both models itself.
        named = self.made_for and self.fit != "other model"
        made_for = f"made for {self.made_for}" if named else ""
        return ": ".join(part for part in (made_for, self.remark) if part)

    def _size(self) -> str:
        if self.size is None or self.matched == 0:
            return ""
        return f"size of the update: {self.size.words(self.strength)}"


@dataclass(frozen=True)
class LoadReport:
    """Every file of a stack on every expert it went to."""

    files: tuple[FileReport, ...] = ()
    notes: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ()
    """The experts that are connected."""

    @property
    def matched(self) -> int:
        return sum(file.matched for file in self.files)

    @property
    def total(self) -> int:
        return sum(file.total for file in self.files)

    @property
    def signs(self) -> dict[Sign, tuple[str, ...]]:
        """Every sign, and the files or experts that show it."""
        shown: dict[Sign, tuple[str, ...]] = {}
        for file in self.files:
            for sign in file.signs:
                shown[sign] = (*shown.get(sign, ()), f"{file.file} -> {file.expert}")
        return shown | signs_of_stack(self.files, self.roles)

    @property
    def verdict(self) -> str:
        """The sum, then the files that do not simply fit."""
        if not self.files:
            return "No LoRA was applied."
        # Nothing for one expert is an answer when there is something for the other one.
        useful = {file.file for file in self.files if file.matched}
        odd = [f for f in self.files if not f.well and (f.total or f.file not in useful)]
        named = "; ".join(f"{file.file} -> {file.expert} {file.verdict}" for file in odd)
        sum_ = f"{self.matched} of {self.total} modules matched."
        return f"{sum_} Not all is well: {named}." if odd else f"{sum_} Every file fits."

    def text(self) -> str:
        """Readable as it stands; the verdict comes first."""
        body = [file.text(advice=False) for file in self.files]
        advice = [f"{_advice(sign)} ({', '.join(who)})" for sign, who in self.signs.items()]
        return "\n".join([self.verdict, *body, *advice, *self.notes])

    def as_json(self) -> dict[str, Any]:
        """A plain dict for a node's `ui` and for `/history`; `report_of_json` reads it back."""
        return {
            "version": VERSION,
            "verdict": self.verdict,
            "matched": self.matched,
            "total": self.total,
            "files": [_file_json(file) for file in self.files],
            "advice": [
                {"sign": sign, "what": ADVICE[sign].sign, "say": ADVICE[sign].say, "who": list(who)}
                for sign, who in self.signs.items()
            ],
            "notes": list(self.notes),
            "roles": list(self.roles),
        }


def file_report(
    match: HeaderMatch,
    placement: Placement,
    *,
    header: LoraHeader | None = None,
    keys_for: Role | None = None,
    network: Base | None = None,
    size: UpdateSize | None = None,
    content: str = "",
) -> FileReport:
    """The report of one file that was held against one expert.

    match: with the file's tensors or from its header alone. header: of the file, or of its part for this expert.
    keys_for: the one expert that the keys of the whole file name. network: `base_of_network` of the expert.
    """
    header = header or LoraHeader({})
    tandem = tandem_metadata(header.metadata)
    made_for = base_of_file(header)
    fit, remark = judge_base(made_for, network or Base())
    groups = key_groups(match.leftovers)
    if fit == "other model" and match.changes and all(group.expected for group in groups):
        fit = "other size"  # The shapes fit, whatever the metadata say.
    named_for = expert_in_name(placement.file)
    return FileReport(
        **placement._asdict(),
        layout=match.layout,
        matched=len(match.changes),
        total=match.num_modules,
        ranks=match.ranks,
        alphas=match.alphas,
        forms=match.kinds,
        groups=groups,
        made_for=_source(made_for),
        fit=fit,
        remark=remark,
        expressions=_not_followed(match, header),
        trained_for=str(keys_for or tandem.get("expert") or ""),
        named_for=f"{named_for}_noise" if named_for else "",
        pair_id=str(tandem.get("pair_id") or ""),
        content=content,
        size=size,
    )


def header_report(
    header: LoraHeader, parameters: Mapping[str, Shape], placement: Placement
) -> FileReport:
    """The report of a file of which only the header was read: all but the size of its update and copies of it."""
    network = base_of_network(parameters, placement.expert)
    return file_report(match_header(header, parameters), placement, header=header, network=network)


def _not_followed(match: HeaderMatch, header: LoraHeader) -> tuple[str, ...]:
    """The settings' regular expressions, if the file leaves any alpha to them."""
    asked = any(change.rank and "alpha" not in change.keys for change in match.changes)
    return header.settings.expressions if asked else ()


def key_groups(leftovers: Iterable[Leftover]) -> tuple[KeyGroup, ...]:
    """Leftovers by cause, in the order of their first keys; every key is counted once."""
    grouped: dict[tuple[str, bool], list[Leftover]] = {}
    for left in leftovers:
        grouped.setdefault((left.cause, left.expected), []).append(left)
    return tuple(
        KeyGroup(
            cause=cause,
            detail=keys[0].detail,
            count=len(keys),
            example=keys[0].key,
            expected=expected,
        )
        for (cause, expected), keys in grouped.items()
    )


def report_of_json(entries: Mapping[str, Any]) -> LoadReport:
    """The report that `as_json` wrote; raises `UserError` for another version."""
    if entries.get("version") != VERSION:
        raise UserError(
            f"The load report has version {entries.get('version')!r}.",
            f"This version of Tandem reads version {VERSION}.",
            "Run the graph again to get a new one.",
        )
    files = tuple(_file_of_json(entry) for entry in entries["files"])
    return LoadReport(files, tuple(entries["notes"]), tuple(entries["roles"]))


def _file_json(file: FileReport) -> dict[str, Any]:
    size = file.size._asdict() if file.size else None
    derived = {"verdict": file.verdict, "signs": list(file.signs), "text": file.text()}
    plain = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(file).items()
    }
    return plain | {"size": size} | derived


def _file_of_json(entry: Mapping[str, Any]) -> FileReport:
    stored = {field.name: entry[field.name] for field in fields(FileReport)}
    for name in ("ranks", "alphas", "forms", "expressions"):
        stored[name] = tuple(stored[name])
    stored["groups"] = tuple(KeyGroup(**group) for group in stored["groups"])
    stored["size"] = UpdateSize(**stored["size"]) if stored["size"] else None
    return FileReport(**stored)


def _advice(sign: Sign) -> str:
    return f"{ADVICE[sign].sign} {ADVICE[sign].say}"


def _source(base: Base) -> str:
    if not (base.source or base.size):
        return ""
    return f"{base.words()}, says its {base.source}" if base.source else base.words()


def _listed(values: Sequence[float]) -> str:
    """`4/8`, `4 to 64 (12 values)`, or a dash for none."""
    if len(values) > SHOWN:
        return f"{values[0]:g} to {values[-1]:g} ({len(values)} values)"
    return "/".join(f"{value:g}" for value in values) or "-"
