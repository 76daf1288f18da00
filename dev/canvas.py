"""The UI form of a graph, format 0.4: what the browser opens, with a place for everything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .graphs import Column, Graph, Link, Node, Note, Specs

FORMAT_VERSION = 0.4
COLUMN_GAP_PX = 46
TITLE_PX, BADGE_PX = 30, 26
ROW_GAP_PX = TITLE_PX + BADGE_PX
FRAME_PX, FRAME_TITLE_PX, FRAME_FOOT_PX, NOTE_GAP_PX = 15, 40, 30, 50
NOTE_COLORS = {"color": "#432", "bgcolor": "#653"}

Json = dict[str, Any]


def canvas_form(graph: Graph, specs: Specs) -> Json:
    """The JSON of a workflow file."""
    links = _links(graph, specs)
    nodes, groups = [], []
    left = 0
    for column in graph.columns:
        nodes += _column_nodes(column, left, specs, links)
        groups.append(_group(len(groups) + 1, column, nodes[-len(column.nodes) :]))
        left += column.width_px + COLUMN_GAP_PX
    notes = list(_notes(graph, groups, len(nodes)))
    return {
        "last_node_id": len(nodes) + len(notes),
        "last_link_id": len(links),
        "nodes": nodes + notes,
        "links": links,
        "groups": groups,
        "config": {},
        "extra": {},
        "version": FORMAT_VERSION,
    }


def _links(graph: Graph, specs: Specs) -> list[list[Any]]:
    """[id, from node, from slot, to node, to slot, type] for every link of the graph."""
    links: list[list[Any]] = []
    for node in graph.nodes:
        for slot, name in enumerate(_sockets(node, specs)):
            value = node.inputs.get(name)
            if isinstance(value, Link):
                origin = [value.node.id, specs[value.node.type].slot(value.output)]
                kind = specs[node.type].inputs[name]
                links.append([len(links) + 1, *origin, node.id, slot, kind])
    return links


def _sockets(node: Node, specs: Specs) -> list[str]:
    spec = specs[node.type]
    return [
        name
        for name in spec.inputs
        if isinstance(node.inputs.get(name), Link) or not spec.is_widget(name)
    ]


def _column_nodes(
    column: Column, left: int, specs: Specs, links: list[list[Any]]
) -> Iterator[Json]:
    top = 0
    for node in column.nodes:
        height = specs[node.type].height_px + node.room_px
        yield {
            "id": node.id,
            "type": node.type,
            "title": node.title,
            "pos": [left, top],
            "size": [column.width_px, height],
            "flags": {},
            "order": node.id - 1,
            "mode": 0,
            "inputs": _inputs(node, specs, links),
            "outputs": _outputs(node, specs, links),
            "properties": _properties(node),
            "widgets_values": _widget_values(node, specs),
        }
        top += height + ROW_GAP_PX


def _inputs(node: Node, specs: Specs, links: list[list[Any]]) -> list[Json]:
    spec = specs[node.type]
    link_at = {link[4]: link[0] for link in links if link[3] == node.id}
    return [
        {
            "name": name,
            "type": spec.inputs[name],
            "link": link_at.get(slot),
            **({"shape": 7} if spec.is_optional(name) else {}),
        }
        for slot, name in enumerate(_sockets(node, specs))
    ]


def _outputs(node: Node, specs: Specs, links: list[list[Any]]) -> list[Json]:
    return [
        {
            "name": name,
            "type": kind,
            "links": [link[0] for link in links if link[1:3] == [node.id, slot]] or None,
        }
        for slot, (name, kind) in enumerate(specs[node.type].outputs.items())
    ]


def _properties(node: Node) -> Json:
    models = {"models": node.models} if node.models else {}
    return {"Node name for S&R": node.type, **models}


def _widget_values(node: Node, specs: Specs) -> list[Any]:
    """In the order of the widgets on the node, those without a value of their own included."""
    spec = specs[node.type]
    values = node.values(spec)
    found: list[Any] = []
    for name in filter(spec.is_widget, spec.inputs):
        linked = isinstance(values.get(name), Link)
        found += [None if linked else values.get(name), *spec.companions(name)]
    return found


def _group(number: int, column: Column, nodes: list[Json]) -> Json:
    """A frame around a column's nodes; its title stands above their titles and badges."""
    (left, top), (_, bottom) = nodes[0]["pos"], nodes[-1]["pos"]
    left, top = left - FRAME_PX, top - ROW_GAP_PX - FRAME_TITLE_PX
    bottom += nodes[-1]["size"][1] + FRAME_FOOT_PX
    return {
        "id": number,
        "title": column.title,
        "bounding": [left, top, column.width_px + 2 * FRAME_PX, bottom - top],
        "color": column.color,
        "font_size": 24,
        "flags": {},
    }


def _notes(graph: Graph, groups: list[Json], last: int) -> Iterator[Json]:
    for column, group in zip(graph.columns, groups, strict=True):
        left, top, width, height = group["bounding"]
        y = top + height + NOTE_GAP_PX
        for note in column.notes:
            last += 1
            yield _note(last, note, [left, y], [width, note.height_px])
            y += note.height_px + NOTE_GAP_PX


def _note(number: int, note: Note, pos: list[int], size: list[int]) -> Json:
    return {
        "id": number,
        "type": "MarkdownNote",
        "title": "Read me",
        "pos": pos,
        "size": size,
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": [note.text],
        **NOTE_COLORS,
    }
