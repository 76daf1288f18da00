"""A small language for workflows: nodes with titles, in columns, and the API form of such a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .node_spec import NodeSpec

Specs = Mapping[str, NodeSpec]


@dataclass(eq=False)
class Node:
    """A node of a graph; `node["latent"]` is the link from its output of that name."""

    id: int
    type: str
    title: str
    inputs: dict[str, Any]
    room_px: int
    """Height beyond its widgets: for the text and the pictures that it shows."""
    models: list[dict[str, str]]
    """Where the files that it loads can be had; the browser offers them for download."""

    def __getitem__(self, output: str) -> Link:
        return Link(self, output)

    def values(self, spec: NodeSpec) -> dict[str, Any]:
        """Its inputs in the order of the schema, defaults filled in."""
        if unknown := set(self.inputs) - set(spec.inputs):
            names = ", ".join(sorted(unknown))
            raise KeyError(f"{self.type} has no input {names}; it has {', '.join(spec.inputs)}.")
        values = {**spec.defaults, **self.inputs}
        return {name: values[name] for name in spec.inputs if name in values}


@dataclass(frozen=True)
class Link:
    node: Node
    output: str

    def api(self, specs: Specs) -> list[Any]:
        return [str(self.node.id), specs[self.node.type].slot(self.output)]


@dataclass(frozen=True)
class Note:
    """Markdown for the reader; it is no part of the API form."""

    text: str
    height_px: int


@dataclass
class Column:
    """A framed group of nodes, one below the other, and notes below the frame."""

    title: str
    color: str
    width_px: int
    nodes: list[Node] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


class Graph:
    """Columns from left to right; what is added goes to the bottom of the last one."""

    def __init__(self) -> None:
        self.columns: list[Column] = []

    @property
    def nodes(self) -> list[Node]:
        return [node for column in self.columns for node in column.nodes]

    def column(self, title: str, color: str, width_px: int) -> None:
        """Begin the next column."""
        self.columns.append(Column(title, color, width_px))

    def add(
        self,
        type_: str,
        title: str,
        /,
        *,
        room_px: int = 0,
        models: list[dict[str, str]] | None = None,
        **inputs: Any,
    ) -> Node:
        node = Node(len(self.nodes) + 1, type_, title, inputs, room_px, models or [])
        self.columns[-1].nodes.append(node)
        return node

    def note(self, text: str, height_px: int) -> None:
        self.columns[-1].notes.append(Note(text, height_px))

    def api(self, specs: Specs) -> dict[str, Any]:
        """What `POST /prompt` takes."""
        return {str(node.id): _api_node(node, specs) for node in self.nodes}


def _api_node(node: Node, specs: Specs) -> dict[str, Any]:
    values = node.values(specs[node.type])
    return {
        "class_type": node.type,
        "inputs": {
            name: value.api(specs) if isinstance(value, Link) else value
            for name, value in values.items()
        },
        "_meta": {"title": node.title},
    }
