"""Saved stacks: a folder of recipes, from which nothing is lost."""

from __future__ import annotations

import os
import threading
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError
from .recipes import Recipe, read_recipe, recipe_document, row_files, write_recipe

LONGEST_NAME = 80
"""Characters; with 200 bytes of UTF-8 it leaves room for a number in every file system."""
_REFUSED = set('/\\:*?"<>|')
_DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in range(10)
}

DELETED = ".deleted"
"""The folder inside the store to which deleted and overwritten recipes go, as NAME.1.json, NAME.2.json, ..."""


class NoSuchRecipeError(UserError):
    """No stack is saved under that name."""


class RecipeExistsError(UserError):
    """Another stack is saved under that name."""


@dataclass(frozen=True, kw_only=True)
class SavedRecipe:
    """A line of the store's list."""

    name: str
    note: str = ""
    rows: int = 0
    files: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    saved: float | None = None
    """Seconds since 1970."""
    example: bool = False
    error: str | None = None
    """Why it cannot be read; then the rest is empty."""


def summary(recipe: Recipe, *, saved: float | None = None, example: bool = False) -> SavedRecipe:
    return SavedRecipe(
        name=recipe.name,
        note=recipe.note,
        rows=len(recipe.rows),
        files=tuple(row_files(recipe.rows)),
        triggers=recipe.words(),
        saved=saved,
        example=example,
    )


def checked_name(name: object, what: str = "The stack's name") -> str:
    """The name as it can stand in any file system; raises `UserError`, which `what` begins, for one that cannot."""
    text = unicodedata.normalize("NFC", name).strip() if isinstance(name, str) else ""
    reason = _why_refused(text)
    if reason:
        raise UserError(
            f"{what} is {name!r:.120}, which {reason}.",
            f"A name has 1 to {LONGEST_NAME} characters, none of {' '.join(sorted(_REFUSED))}, and no dot at an end.",
            "Choose another name, for example anime fast.",
        )
    return text


def _why_refused(text: str) -> str | None:
    if not text:
        return "is empty"
    if len(text) > LONGEST_NAME or len(text.encode("utf-8", "replace")) > 200:
        return f"has {len(text)} characters"
    if bad := sorted(c for c in text if c in _REFUSED or not c.isprintable()):
        return f"has {bad[0]!r}"
    if text.startswith(".") or text.endswith("."):
        return "has a dot at an end"
    if text.split(".")[0].strip().lower() in _DEVICES:
        return "is a device's name on Windows"
    return None


class RecipeStore:
    """The recipes NAME.json of one folder; made when the first is saved. Usable from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()

    def names(self) -> list[str]:
        found = self.folder.glob("*.json") if self.folder.is_dir() else ()
        return sorted((p.stem for p in found if not p.name.startswith(".")), key=str.casefold)

    def list(self) -> list[SavedRecipe]:
        """Every saved stack; one that cannot be read says why."""
        return [line for name in self.names() if (line := self._line(name))]

    def _line(self, name: str) -> SavedRecipe | None:
        try:
            return summary(self.read(name), saved=self.path(name).stat().st_mtime)
        except (NoSuchRecipeError, FileNotFoundError):  # deleted since the names were listed
            return None
        except UserError as error:
            return SavedRecipe(name=name, error=str(error))

    def path(self, name: str) -> Path:
        """Where the stack of that name lies, or would lie."""
        path = self.folder / f"{checked_name(name)}.json"
        assert path.parent == self.folder
        return path

    def read(self, name: str) -> Recipe:
        path = self.path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise self._nothing(name) from None
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path} is not text ({error}).",
                "A saved stack is a JSON file in UTF-8.",
                "Save the stack anew under this name.",
            ) from error
        # The file's name goes before the one inside: somebody may have renamed the file by hand.
        return replace(read_recipe(text, str(path)), name=path.stem)

    def save(self, recipe: Recipe, *, overwrite: bool = False) -> Path:
        """Saves under the recipe's name; what it replaces is kept in `.deleted`.

        A recipe that is saved already, with the same rows, files and note, is left as it is.
        """
        with self._lock:
            path = self.path(recipe.name)
            recipe = replace(recipe, name=path.stem)
            if path.exists():
                if self._same(path, recipe):
                    return path
                if not overwrite:
                    raise self._exists(recipe.name)
                # A copy first, so that the name is never without a file.
                self._keep(path).write_bytes(path.read_bytes())
            write_recipe(path, recipe)
            return path

    def rename(self, old: str, new: str) -> Path:
        with self._lock:
            source, target = self.path(old), self.path(new)
            recipe = self.read(old)
            if target.exists() and not target.samefile(source):
                raise self._exists(new)
            os.replace(source, target)
            write_recipe(target, replace(recipe, name=target.stem))
            return target

    def delete(self, name: str) -> Path:
        """Moves the stack to `.deleted`; where it lies now. Moved back by hand, it is there again."""
        with self._lock:
            path = self.path(name)
            if not path.exists():
                raise self._nothing(name)
            kept = self._keep(path)
            os.replace(path, kept)
            return kept

    def _same(self, path: Path, recipe: Recipe) -> bool:
        try:
            there = self.read(path.stem)
        except UserError:  # what cannot be read is another one, and is not overwritten unasked
            return False
        return _content(there) == _content(recipe)

    def _keep(self, path: Path) -> Path:
        """The next free NAME.N.json in `.deleted`."""
        folder = self.folder / DELETED
        folder.mkdir(parents=True, exist_ok=True)
        number = 1
        while (kept := folder / f"{path.stem}.{number}.json").exists():
            number += 1
        return kept

    def _nothing(self, name: str) -> NoSuchRecipeError:
        names = self.names()
        there = ", ".join(names[:10]) if names else "none yet"
        return NoSuchRecipeError(
            f"No stack is saved as {name!r}.",
            f"Saved are: {there}{', ...' if len(names) > 10 else ''} (in {self.folder}).",
            "Choose one of them, or save it with Tandem Save Stack.",
        )

    def _exists(self, name: str) -> RecipeExistsError:
        return RecipeExistsError(
            f"Another stack is saved as {name!r}.",
            "A name belongs to one stack.",
            "Take another name, or set overwrite to true: the old one is then kept in the folder .deleted.",
        )


def _content(recipe: Recipe) -> dict[str, object]:
    return {**recipe_document(recipe), "made_with": ""}
