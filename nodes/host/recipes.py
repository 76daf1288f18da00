"""Recipes in the host: where they lie, which files they find here, and what a saved video tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import folder_paths

from ...wan.errors import UserError
from ...wan.lora.digests import Digests
from ...wan.lora.example_stacks import EXAMPLES
from ...wan.lora.file_notes import completed, recipe_of, with_words
from ...wan.lora.recipe_store import RecipeStore
from ...wan.lora.recipes import Recipe, read_recipe, recipe_from
from ...wan.lora.resolution import Resolution, parse_choices, resolve
from ...wan.lora.stack import LoraStack, rows_json
from .graph_stacks import graph_recipes, stack_links
from .media_tags import media_entries
from .places import lora_names

KEY = "tandem"
"""The entry of a saved video or picture: {"version": 1, "stacks": {id of the Apply Stack node: recipe}}."""
ENTRY_VERSION = 1


def recipes_folder() -> Path:
    """`user/default/tandem`: the host's folder of what its user keeps."""
    return Path(folder_paths.get_user_directory()) / "default" / "tandem"


def recipe_store() -> RecipeStore:
    return _store(recipes_folder() / "stacks")


def digests() -> Digests:
    """SHA-256 of files, remembered in `user/default/tandem/digests.json`."""
    return _digests(recipes_folder() / "digests.json")


# One of each per folder: their locks hold only among those who share them.
_store, _digests = cache(RecipeStore), cache(Digests)


def known_names() -> list[str]:
    """What Tandem Load Stack offers: the examples, then the saved stacks."""
    return [*EXAMPLES, *recipe_store().names()]


def known_recipe(name: str) -> Recipe:
    """An example or a saved stack; raises `UserError` when there is none of that name."""
    return EXAMPLES[name] if name in EXAMPLES else recipe_store().read(name)


def recipe_here(stack: LoraStack, *, name: str = "", note: str = "") -> Recipe:
    """The stack as a recipe. A file that is new here is hashed: about a second a GB from a fast disk."""
    return recipe_of(stack, path_here, digests(), name=name, note=note)


def completed_here(recipe: Recipe) -> Recipe:
    """The recipe with fresh notes of the files that are here."""
    return completed(recipe, path_here, digests())


def path_here(name: str) -> Path | None:
    """The file of a LoRA by its name in the host's lists, or None."""
    path = folder_paths.get_full_path("loras", name)
    return None if path is None else Path(path)


def loaded(recipe: Recipe, choices: str, changed: str) -> tuple[Recipe, Resolution]:
    """The recipe with the file names of this computer; raises `UserError` with candidates for missing ones.

    It may hash files, so the server's event loop calls it in another thread.
    """
    chosen = parse_choices(choices, recipe)
    resolution = resolve(recipe, lora_names(), path_here, digests(), chosen)
    resolution.check(recipe, changed=changed)
    here = with_words(resolution.applied_to(recipe), path_here)
    if here.triggers:
        # The stack has words of its own, which do not speak of the files that were chosen now.
        new = [w for note in here.files if note.name in resolution.chosen() for w in note.triggers]
        here = replace(here, triggers=tuple(dict.fromkeys([*here.triggers, *new])))
    return here, resolution


def recipe_given(name: str, text: str) -> Recipe:
    """The pasted recipe, or without one the stack of that name."""
    return read_recipe(text, "recipe") if text.strip() else known_recipe(name)


def media_recipes(path: Path, node: str = "") -> dict[str, Recipe]:
    """The stacks that were applied when the file was made, by the id of their Tandem Apply Stack; or `node`'s alone.

    From the `tandem` entry; for what that does not hold, from the prompt that ComfyUI stores. Raises `UserError`
    when the file cannot be read, or when the stack of a node cannot be told.
    """
    entries = media_entries(path)
    told = _entry_recipes(entries.get(KEY), path.name)
    prompt = entries.get("prompt")
    graph: Mapping[str, Any] = prompt if isinstance(prompt, dict) else {}
    untold = [other for other in stack_links(graph) if other not in told and node in ("", other)]
    found = {**graph_recipes(graph, untold, known_recipe), **told}
    if not node:
        return found
    if node not in found:
        raise _choose_node(path, found, f"has no stack of node {node!r}")
    return {node: found[node]}


def read_video_recipe(path: Path, node: str = "") -> Recipe | None:
    """The stack with which a video or picture was made; None when it was made without one.

    `node` is the id of a Tandem Apply Stack, for a graph that has several with different stacks.
    """
    found = media_recipes(path, node)
    different = {rows_json(recipe.rows): recipe for recipe in found.values()}
    if len(different) > 1:
        raise _choose_node(path, found, f"holds {len(different)} stacks")
    return next(iter(different.values()), None)


def _entry_recipes(entry: object, file: str) -> dict[str, Recipe]:
    if not isinstance(entry, Mapping) or entry.get("version") != ENTRY_VERSION:
        return {}
    stacks: Any = entry.get("stacks")
    return {
        str(node): recipe_from(document, f"{file}, node {node}")
        for node, document in (stacks.items() if isinstance(stacks, Mapping) else ())
    }


def _choose_node(path: Path, found: Mapping[str, Recipe], what: str) -> UserError:
    nodes = ", ".join(f"{node} ({len(recipe.rows)} rows)" for node, recipe in found.items())
    return UserError(
        f"{path.name} {what}.",
        f"It holds the stacks of these Tandem Apply Stack nodes: {nodes or 'none'}.",
        "Put the id of one of them into node.",
    )
