"""Saved plans: a folder of NAME.json, in which nothing is ever overwritten."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from filelock import FileLock

from ...wan.errors import UserError
from ...wan.lora.recipe_store import checked_name
from .plan import TrainingPlan
from .reading import plan_json, read_plan

LOCK = ".lock"
WHAT = "The plan's name"


def plan_names(folder: Path) -> list[str]:
    """What is saved, without regard to capitals in its order."""
    found = folder.glob("*.json") if folder.is_dir() else ()
    return sorted((p.stem for p in found if not p.name.startswith(".")), key=str.casefold)


def plan_path(folder: Path, name: object) -> Path:
    """Where the plan of that name lies, or would lie: always in `folder` itself."""
    return folder / f"{checked_name(name, WHAT)}.json"


def save_plan(folder: Path, name: str, plan: TrainingPlan) -> Path:
    """Writes NAME.json whole. Where another plan has the name it becomes NAME_2, NAME_3, ...; a plan that is there
    already is left as it is."""
    text = plan_json(plan) + "\n"
    plan_path(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        number = 1
        while True:
            path = plan_path(folder, name if number == 1 else f"{name}_{number}")
            if not path.exists():
                _write_whole(path, text)
                return path
            if _holds(path, text):
                return path
            number += 1


def load_plan(folder: Path, name: str) -> TrainingPlan:
    """The saved plan; raises `UserError` when there is none, or when the file is no plan."""
    path = plan_path(folder, name)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _nothing(folder, name) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path.name} is not text ({error}).",
            "A saved plan is a JSON file in UTF-8.",
            "Save the plan anew.",
        ) from error
    try:
        return read_plan(text)
    except UserError as error:
        raise UserError(f"{path.name}: {error.came}", error.can_be, error.to_do) from error


def _nothing(folder: Path, name: str) -> UserError:
    names = plan_names(folder)
    there = f"There are {', '.join(names[:20])}." if names else "There is none yet."
    return UserError(
        f"No plan is saved as {name!r}.",
        there,
        "Save one with Tandem Save Plan, or paste its JSON.",
    )


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def _write_whole(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
