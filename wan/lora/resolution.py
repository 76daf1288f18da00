"""Finding a recipe's files on this computer: by name, by content, or by what a person chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from ..errors import UserError
from .file_notes import DigestOf, PathOf
from .recipes import FileNote, Recipe, with_files, with_halves
from .stack import expert_in_name

MOST_CANDIDATES = 5


class Found(NamedTuple):
    """A file of the recipe and the file of this computer that takes its place."""

    note: FileNote
    name: str
    how: Literal["same name", "same content", "other content", "chosen"]
    """`other content`: the name is right, the hash is another, and no file here has the right one."""


class Candidate(NamedTuple):
    """A file that may be meant; a person decides."""

    name: str
    why: str


class Missing(NamedTuple):
    note: FileNote
    candidates: tuple[Candidate, ...]
    needed: bool
    """Whether a row that is on names it, or its other half was found for one."""


@dataclass(frozen=True)
class Resolution:
    """Where each file of a recipe is, or what could take its place."""

    found: tuple[Found, ...]
    missing: tuple[Missing, ...]

    def needed(self) -> tuple[Missing, ...]:
        return tuple(missing for missing in self.missing if missing.needed)

    def changed(self) -> tuple[Found, ...]:
        return tuple(found for found in self.found if found.how == "other content")

    def applied_to(self, recipe: Recipe) -> Recipe:
        """The recipe with the names of this computer; of a file that took another's place only the name is known."""
        names = {found.note.name: found.name for found in self.found}
        notes = {note.name: note for note in recipe.files if not note.choose}
        notes = {
            names.get(name, name): replace(
                n,
                name=names.get(name, name),
                half_of=names.get(n.half_of, n.half_of) if n.half_of else None,
            )
            for name, n in notes.items()
        }
        gone: set[str] = set()
        for found in self.found:
            if found.how == "chosen":
                of = found.note.half_of
                notes[found.name] = FileNote(
                    name=found.name,
                    kind=found.note.kind,
                    half_of=names.get(of, of) if of else None,
                    side=found.note.side,
                )
                gone.update(found.note.triggers)
            elif found.how == "other content":
                notes[found.name] = replace(notes[found.name], sha256=None, size=None)
        return replace(
            recipe,
            rows=with_halves(with_files(recipe.rows, names), self._moved_halves(names)),
            files=tuple(notes.values()),
            triggers=tuple(word for word in recipe.triggers if word not in gone),
        )

    def _moved_halves(self, names: Mapping[str, str]) -> list[FileNote]:
        """Found halves that the names of this computer may not tell as such, under these names."""
        moved = []
        for half in (found.note for found in self.found):
            of = half.half_of
            if of is None or of not in names:
                continue
            if (names[of], names[half.name]) != (of, half.name):
                moved.append(replace(half, name=names[half.name], half_of=names[of]))
        return moved

    def chosen(self) -> set[str]:
        """The names here of the files that a person chose."""
        return {found.name for found in self.found if found.how == "chosen"}

    def text(self) -> str:
        """A line for every file that is not simply there."""
        lines = [_found_line(found) for found in self.found if found.how != "same name"]
        for missing in self.missing:
            what = "is to be chosen" if missing.note.choose else "is not here"
            lines.append(
                f"{missing.note.name} {what}{'' if missing.needed else ' (its row is off)'}"
            )
        return "\n".join(lines)

    def check(self, recipe: Recipe, *, changed: str = "warn") -> None:
        """Raises `UserError` when a row that is on has no file, or, with `changed` "error", another one."""
        if needed := self.needed():
            raise _missing_error(recipe, needed)
        if changed == "error" and (other := self.changed()):
            raise UserError(
                f"{_called(recipe)}: {', '.join(found.name for found in other)} has another content "
                "than when the recipe was saved.",
                "With changed = error, every file is the same to the last byte.",
                "Bring the file of the recipe back, save the stack anew, or set changed to warn.",
            )


def resolve(
    recipe: Recipe,
    names: Sequence[str],
    path_of: PathOf,
    digest_of: DigestOf,
    chosen: Mapping[str, str] | None = None,
) -> Resolution:
    """Where the recipe's files are among `names`, the LoRAs of this computer.

    Content decides where the recipe knows it: a file that was renamed or moved is found by its hash. Only files
    of the right size are hashed. `chosen` goes before all (recipe's name -> name here). Nothing is guessed.
    """
    shelf = _Shelf(names, path_of, digest_of)
    used = set(recipe.used())
    found, missing = [], []
    for note in recipe.notes().values():
        result = _resolve_one(note, shelf, dict(chosen or {}))
        if isinstance(result, Found):
            found.append(result)
        else:
            missing.append(Missing(note, result, note.name in used))
    return Resolution(tuple(found), tuple(missing))


class _Shelf:
    """The LoRAs of this computer."""

    def __init__(self, names: Sequence[str], path_of: PathOf, digest_of: DigestOf) -> None:
        self.names = sorted(names)
        self._path_of, self._digest_of = path_of, digest_of
        self._by_name = {_slashes(name): name for name in self.names}

    def called(self, name: str) -> str | None:
        """The name as the host has it, whichever way its slashes lean."""
        return self._by_name.get(_slashes(name))

    def holds(self, name: str, note: FileNote) -> bool:
        """Whether the file has the content that the note knows."""
        path = self._path_of(name)
        try:
            return (
                path is not None
                and path.stat().st_size == note.size
                and self._digest_of(path) == note.sha256
            )
        except FileNotFoundError:  # the host's list may be older than the folder
            return False


def _resolve_one(
    note: FileNote, shelf: _Shelf, chosen: dict[str, str]
) -> Found | tuple[Candidate, ...]:
    if note.name in chosen:
        return Found(note, _chosen(note, shelf, chosen[note.name]), "chosen")
    if note.choose:
        return _suggestions(note, shelf)
    exact = shelf.called(note.name)
    if exact and (note.sha256 is None or shelf.holds(exact, note)):
        return Found(note, exact, "same name")
    if note.sha256 and (same := [name for name in shelf.names if shelf.holds(name, note)]):
        return Found(note, same[0], "same content")
    if exact:
        return Found(note, exact, "other content")
    why = "same file name, other content" if note.sha256 else "same file name, in another folder"
    alike = [name for name in shelf.names if _base(name) == _base(note.name)]
    return tuple(Candidate(name, why) for name in alike[:MOST_CANDIDATES])


def _chosen(note: FileNote, shelf: _Shelf, name: str) -> str:
    if (here := shelf.called(name)) is None:
        near = [other for other in shelf.names if Path(name).stem.lower() in other.lower()]
        raise UserError(
            f"files: {note.name} = {name}, but {name!r} is not in a loras folder.",
            f"There are {len(shelf.names)} LoRAs{_like(near)}.",
            "Check the spelling (subfolders count), or copy the file there.",
        )
    return here


def parse_choices(text: str, recipe: Recipe) -> dict[str, str]:
    """Lines `NAME = FILE`: which file of this computer stands for a role or a file of the recipe."""
    known, choices = list(recipe.notes()), {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        # A file name may hold "=" itself, so the known names decide where it ends.
        starts = [n for n in known if line.strip().startswith(n)]
        name = max(starts, key=len, default="")
        rest = line.strip()[len(name) :].strip()
        if not name or not rest.startswith("=") or not rest[1:].strip():
            raise UserError(
                f"files: line {number} is {line.strip()!r:.120}.",
                f"A line is NAME = FILE, and NAME is one of {', '.join(known) or 'no name at all'}.",
                f"For example: {known[0] if known else 'style'} = my_lora.safetensors",
            )
        choices[name] = rest[1:].strip()
    return choices


# Parts of the names under which speed and quality LoRAs are published (file lists of the pages that
# `example_stacks` names). They only make suggestions.
PUBLISHED = {
    "speed": ("lightx2v", "lightning", "distill", "4step", "4-step"),
    "quality": ("reward", "hps", "mps"),
}


def _suggestions(note: FileNote, shelf: _Shelf) -> tuple[Candidate, ...]:
    """Files that are published for such a role, and whose name speaks of its expert where it has one."""
    parts, side = PUBLISHED.get(note.kind or "", ()), expert_in_name(note.name)
    fits = [
        name
        for name in shelf.names
        if any(part in name.lower() for part in parts) and side in (None, expert_in_name(name))
    ]
    return tuple(Candidate(name, f"a {note.kind} LoRA by its name") for name in fits)[
        :MOST_CANDIDATES
    ]


def _missing_error(recipe: Recipe, needed: tuple[Missing, ...]) -> UserError:
    roles = [missing for missing in needed if missing.note.choose]
    lines = "\n".join(_missing_line(missing) for missing in needed)
    first = needed[0]
    example = first.candidates[0].name if first.candidates else "my_lora.safetensors"
    if roles and len(roles) == len(needed):
        came = f"{_called(recipe)} leaves {_count(roles)} for you to choose:\n{lines}\n"
    else:
        came = f"{_called(recipe)} needs {_count(needed)} that no loras folder has:\n{lines}\n"
    return UserError(
        came,
        "A file is found by its name, or by its content under any name.",
        f"Copy it to a loras folder, or say which one to take in `files`: {first.note.name} = {example}",
    )


def _missing_line(missing: Missing) -> str:
    note = missing.note
    parts = [note.choose or f"{note.size:,} bytes" if note.choose or note.size else ""]
    parts += [f"from {note.source}" if note.source else ""]
    parts += ["here: " + ", ".join(f"{c.name} ({c.why})" for c in missing.candidates)]
    said = "; ".join(part for part in parts if part and part != "here: ")
    return f"- {note.name}{': ' + said if said else ''}"


def _found_line(found: Found) -> str:
    if found.how == "other content":
        return f"{found.name}: same name, other content than in the recipe"
    return f"{found.note.name} is {found.name} ({found.how})"


def _called(recipe: Recipe) -> str:
    return f"The stack {recipe.name!r}" if recipe.name else "The stack"


def _count(items: Sequence[object]) -> str:
    return f"{len(items)} file{'' if len(items) == 1 else 's'}"


def _like(near: Sequence[str]) -> str:
    return f"; like it: {', '.join(near[:3])}" if near else ""


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _base(name: str) -> str:
    return _slashes(name).rsplit("/", 1)[-1].lower()
