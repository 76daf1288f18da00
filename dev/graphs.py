"""A small language for workflows: nodes with titles and places, written as API and as UI JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMAT_VERSION = 0.4
COLUMN_PX, ROW_GAP_PX, TITLE_PX = 400, 60, 30


@dataclass
class Node:
    """A node of a graph; `node["latent"]` is the link from its output of that name."""

    id: int
    type: str
    title: str
    inputs: dict[str, Any]
    pos: tuple[int, int]
    size: tuple[int, int]
    models: list[dict[str, str]] = field(default_factory=list)
    """Where the files that it loads can be had; the host offers them for download."""

    def __getitem__(self, output: str) -> Link:
        return Link(self, output)


@dataclass(frozen=True)
class Link:
    node: Node
    output: str


class Graph:
    """Nodes in columns: each new one stands below the last of its column."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.notes: list[tuple[str, tuple[int, int], tuple[int, int]]] = []
        self.groups: list[tuple[str, list[Node]]] = []
        self._bottom: dict[int, int] = {}

    def add(
        self,
        type_: str,
        title: str,
        column: int,
        tall_px: int,
        /,
        *,
        models: list[dict[str, str]] | None = None,
        **inputs: Any,
    ) -> Node:
        """A node in a column; `tall_px` is what its widgets need."""
        node = Node(
            len(self.nodes) + 1,
            type_,
            title,
            inputs,
            self._place(column, tall_px),
            (COLUMN_PX - 60, tall_px),
            models or [],
        )
        self.nodes.append(node)
        return node

    def note(self, text: str, column: int, height: int) -> None:
        """A page of text for the reader; it is no part of the API form."""
        self.notes.append((text, self._place(column, height), (COLUMN_PX - 60, height)))

    def group(self, title: str, *nodes: Node) -> None:
        self.groups.append((title, list(nodes)))

    def _place(self, column: int, height: int) -> tuple[int, int]:
        top = self._bottom.get(column, 0)
        self._bottom[column] = top + height + ROW_GAP_PX
        return column * COLUMN_PX, top

    def api(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """What `POST /prompt` takes."""
        return {
            str(node.id): {
                "class_type": node.type,
                "inputs": {
                    name: _api_value(value, info) for name, value in self._ordered(node, info)
                },
                "_meta": {"title": node.title},
            }
            for node in self.nodes
        }

    def ui(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """What the browser opens."""
        links: list[list[Any]] = []
        nodes = [self._ui_node(order, node, info, links) for order, node in enumerate(self.nodes)]
        for target in nodes:
            for slot, output in enumerate(target["outputs"]):
                output["links"] = [
                    link[0] for link in links if link[1:3] == [target["id"], slot]
                ] or None
        last = len(self.nodes)
        for text, pos, size in self.notes:
            last += 1
            nodes.append(_note(last, text, pos, size))
        return {
            "last_node_id": last,
            "last_link_id": len(links),
            "nodes": nodes,
            "links": links,
            "groups": [
                _group(number, title, members)
                for number, (title, members) in enumerate(self.groups, 1)
            ],
            "config": {},
            "extra": {},
            "version": FORMAT_VERSION,
        }

    def _ordered(self, node: Node, info: Mapping[str, Any]) -> list[tuple[str, Any]]:
        known = _input_types(info[node.type])
        if unknown := set(node.inputs) - set(known):
            raise KeyError(
                f"{node.type} has no input {', '.join(sorted(unknown))}; it has {', '.join(known)}"
            )
        values = {**_defaults(info[node.type]), **node.inputs}
        return [(name, values[name]) for name in known if name in values]

    def _ui_node(
        self, order: int, node: Node, info: Mapping[str, Any], links: list[list[Any]]
    ) -> dict[str, Any]:
        spec = info[node.type]
        inputs, widgets = [], []
        for name, value in [
            (n, dict(self._ordered(node, info)).get(n)) for n in _input_types(spec)
        ]:
            kind = _input_types(spec)[name]
            if isinstance(value, Link):
                slot = info[value.node.type]["output_name"].index(value.output)
                links.append([len(links) + 1, value.node.id, slot, node.id, len(inputs), kind])
                inputs.append({"name": name, "type": kind, "link": len(links)})
            elif _is_widget(spec, name):
                widgets.extend([value, *_companions(spec, name)])
            else:
                inputs.append({"name": name, "type": kind, "link": None, "shape": 7})
        return {
            "id": node.id,
            "type": node.type,
            "title": node.title,
            "pos": list(node.pos),
            "size": list(node.size),
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": inputs,
            "outputs": [
                {"name": name, "type": kind, "links": None}
                for name, kind in zip(spec["output_name"], spec["output"], strict=True)
            ],
            "properties": {
                "Node name for S&R": node.type,
                **({"models": node.models} if node.models else {}),
            },
            "widgets_values": widgets,
        }


def write_workflow(graph: Graph, info: Mapping[str, Any], folder: Path, name: str) -> None:
    """`NAME.json` for the browser, `api/NAME.json` for the queue."""
    (folder / "api").mkdir(parents=True, exist_ok=True)
    for path, content in (
        (folder / f"{name}.json", graph.ui(info)),
        (folder / "api" / f"{name}.json", graph.api(info)),
    ):
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _specs(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {**spec["input"].get("required", {}), **spec["input"].get("optional", {})}


def _input_types(spec: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: "COMBO" if isinstance(entry[0], list) else entry[0]
        for name, entry in _specs(spec).items()
    }


def _is_widget(spec: Mapping[str, Any], name: str) -> bool:
    kind = _input_types(spec)[name]
    return kind in ("STRING", "INT", "FLOAT", "BOOLEAN", "COMBO") or kind.startswith(
        "COMFY_DYNAMICCOMBO"
    )


def _defaults(spec: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, entry in _specs(spec).items():
        options = entry[1] if len(entry) > 1 else {}
        if _is_widget(spec, name) and "default" in options:
            found[name] = options["default"]
    return found


def _companions(spec: Mapping[str, Any], name: str) -> list[Any]:
    """Values that the browser keeps behind a widget's own: what a seed does after a run, the upload button."""
    options = _specs(spec)[name][1] if len(_specs(spec)[name]) > 1 else {}
    if options.get("control_after_generate"):
        return ["fixed"]
    return ["image"] if options.get("image_upload") else []


def _api_value(value: Any, info: Mapping[str, Any]) -> Any:
    if isinstance(value, Link):
        return [str(value.node.id), info[value.node.type]["output_name"].index(value.output)]
    return value


def _note(number: int, text: str, pos: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "MarkdownNote",
        "title": "Read me",
        "pos": list(pos),
        "size": list(size),
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [text],
        "color": "#432",
        "bgcolor": "#653",
    }


def _group(number: int, title: str, members: list[Node]) -> dict[str, Any]:
    left, top = min(n.pos[0] for n in members) - 20, min(n.pos[1] for n in members) - TITLE_PX - 50
    right = max(n.pos[0] + n.size[0] for n in members) + 20
    bottom = max(n.pos[1] + n.size[1] for n in members) + 20
    return {
        "id": number,
        "title": title,
        "bounding": [left, top, right - left, bottom - top],
        "color": "#3f789e",
        "font_size": 24,
        "flags": {},
    }
