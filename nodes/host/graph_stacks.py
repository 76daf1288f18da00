"""The stacks of a prompt, told from its graph alone: for videos that hold no recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

from ...wan.errors import UserError
from ...wan.lora.flat_rows import flat_rows
from ...wan.lora.recipes import Recipe, read_recipe, with_files
from ...wan.lora.resolution import parse_choices
from ...wan.lora.rows import Row, parse_rows

APPLIERS = ("TandemApplyStack",)
"""Nodes whose input `stack` is put on models, and which record it."""
Graph = Mapping[str, Any]
"""A prompt in API format: id -> {class_type, inputs}."""


def stack_links(graph: Graph) -> dict[str, tuple[str, int]]:
    """For each Tandem Apply Stack, the node and output that its stack comes from."""
    links = {}
    for node_id in graph:
        if class_of(graph, node_id) in APPLIERS and (
            link := link_of(inputs_of(graph, node_id), "stack")
        ):
            links[str(node_id)] = link
    return links


def signature(graph: Graph, link: tuple[str, int]) -> str:
    """Equal for equal subgraphs: everything that a link's value depends on, and nothing else."""
    return _signature(graph, link[0], {}) + f":{link[1]}"


def _signature(graph: Graph, node_id: str, seen: dict[str, str]) -> str:
    if node_id not in seen:
        seen[node_id] = "a cycle, which the host refuses"
        inputs = {
            key: _signature(graph, value[0], seen) + f":{value[1]}" if is_link(value) else value
            for key, value in inputs_of(graph, node_id).items()
        }
        text = json.dumps([class_of(graph, node_id), inputs], sort_keys=True, default=str)
        seen[node_id] = sha256(text.encode()).hexdigest()
    return seen[node_id]


def graph_recipes(
    graph: Graph, nodes: Iterable[str], saved: Callable[[str], Recipe]
) -> dict[str, Recipe]:
    """The stack of each of these Tandem Apply Stack nodes; `saved` gives a stack by its name.

    Raises `UserError` when a stack came from something that the graph does not tell, such as a run.
    """
    links = stack_links(graph)
    return {node: _recipe(graph, links[node], saved, 0) for node in nodes}


def _recipe(
    graph: Graph, link: tuple[str, int], saved: Callable[[str], Recipe], depth: int
) -> Recipe:
    kind, inputs = class_of(graph, link[0]), inputs_of(graph, link[0])
    if depth > len(graph):
        raise _untold(link[0], "is part of a circle")
    if kind == "TandemLoraStack" and (rows := _written_rows(inputs)) is not None:
        own = Recipe(rows=rows)
    elif kind == "TandemLoadStack" and (found := _loaded(inputs, saved)):
        own = found
    elif kind == "TandemSaveStack" and (before := link_of(inputs, "stack")):
        return _recipe(graph, before, saved, depth + 1)
    else:
        raise _untold(link[0], f"is a {kind or 'node that is not there'}")
    if before := link_of(inputs, "stack"):
        return _joined(_recipe(graph, before, saved, depth + 1), own)
    return own


def _written_rows(inputs: Mapping[str, Any]) -> tuple[Row, ...] | None:
    """The rows of a Tandem LoRA Stack; None when a part of them comes over a link."""
    text = inputs.get("rows", "[]")
    flat = {key: value for key, value in inputs.items() if key.startswith("loras.")}
    if not isinstance(text, str) or any(map(is_link, flat.values())):
        return None
    return parse_rows(text) + flat_rows(flat)


def _loaded(inputs: Mapping[str, Any], saved: Callable[[str], Recipe]) -> Recipe | None:
    """What a Tandem Load Stack gave, as far as the stack of that name is still the same."""
    text, choices = inputs.get("recipe", ""), inputs.get("files", "")
    name = inputs.get("name")
    if isinstance(text, str) and text.strip():
        recipe = read_recipe(text, "recipe")
    elif isinstance(name, str) and not text:
        recipe = saved(name)
    else:
        return None
    chosen = parse_choices(choices, recipe) if isinstance(choices, str) else {}
    notes = tuple(
        replace(n, name=chosen.get(n.name, n.name), choose=None if n.name in chosen else n.choose)
        for n in recipe.files
    )
    return replace(recipe, rows=with_files(recipe.rows, chosen), files=notes)


def _joined(first: Recipe, second: Recipe) -> Recipe:
    notes = {note.name: note for note in (*second.files, *first.files)}
    stack = first.stack().then(second.stack())
    return replace(second, rows=stack.rows, triggers=stack.triggers, files=tuple(notes.values()))


def _untold(node_id: str, what: str) -> UserError:
    return UserError(
        f"The stack of this file cannot be told: it came from node {node_id}, which {what}.",
        "A stack is told by Tandem's entry in the file, or by rows in Tandem LoRA Stack or Tandem Load Stack.",
        "Open the file in ComfyUI to see its whole graph.",
    )


def class_of(graph: Graph, node_id: str) -> str:
    node = graph.get(node_id)
    return str(node.get("class_type", "")) if isinstance(node, Mapping) else ""


def inputs_of(graph: Graph, node_id: str) -> Mapping[str, Any]:
    node = graph.get(node_id)
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    return inputs if isinstance(inputs, Mapping) else {}


def is_link(value: object) -> bool:
    """Whether an input is [id, output] and no value of its own."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )


def link_of(inputs: Mapping[str, Any], key: str) -> tuple[str, int] | None:
    """The node and output from which an input comes, or None for a value or nothing."""
    value: Any = inputs.get(key)
    return (value[0], value[1]) if is_link(value) else None
