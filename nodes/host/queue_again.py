"""The workflow of a run, kept in its folder, so that the run can be queued again by itself."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import execution
from server import PromptServer

from ...training.records import write_text
from ...wan.errors import UserError

PROMPT, WORKFLOW, CLIPS = "prompt.json", "workflow.json", "clips.json"
SHOWN = 5
"""Clips that an error names."""
Graph = dict[str, Any]
_queued: dict[Path, str] = {}
"""The prompt that was queued last for each run's folder."""


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """What a trainer was queued with: the API graph, the trainer's id in it, and the graph as the page has it."""

    prompt: Mapping[str, Any] | None
    node_id: str | None
    page: Mapping[str, Any] | None = None


def keep_workflow(folder: Path, workflow: Workflow) -> None:
    """`prompt.json`: the trainer and all that it depends on, as the host's API takes it. `workflow.json`: the whole
    as it can be dropped on the page, where it came from one. A trainer that another node has made up is in no graph,
    and nothing is kept."""
    node_id = workflow.node_id
    if not workflow.prompt or node_id is None or node_id not in workflow.prompt:
        return
    graph = _with_ancestors(workflow.prompt, node_id)
    write_text(folder / PROMPT, json.dumps(graph, indent=2))
    page = (workflow.page or {}).get("workflow")
    if page is not None:
        write_text(folder / WORKFLOW, json.dumps(page))


def keep_clips(folder: Path, files: Iterable[Path]) -> None:
    """`clips.json`: the dataset's files and their sizes in bytes, by which a resume sees that one is gone."""
    sizes = {str(path): path.stat().st_size for path in sorted(set(files)) if path.is_file()}
    write_text(folder / CLIPS, json.dumps(sizes, indent=2))


def require_clips(folder: Path, name: str) -> None:
    """Raises `UserError` when a file of the run's dataset is gone or has another size: it would be another dataset, and
    the trainer would refuse it unseen. A run of an earlier version kept no list."""
    try:
        sizes = json.loads((folder / CLIPS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return
    gone = [path for path in sizes if not Path(path).is_file()]
    other = [p for p in sizes if p not in gone and Path(p).stat().st_size != sizes[p]]
    if not gone and not other:
        return
    parts = [
        f"{', '.join(paths[:SHOWN])}{f' and {len(paths) - SHOWN} more' if len(paths) > SHOWN else ''} {what}"
        for paths, what in ((gone, "gone"), (other, "changed"))
        if paths
    ]
    raise UserError(
        f"{name} cannot go on. Files of its dataset: {'; '.join(parts)}.",
        "A run goes on with the very clips it began with.",
        "Put them back, or train the clips that are there under another name.",
    )


async def queue_again(folder: Path, name: str) -> str:
    """Queues the kept workflow with its trainer as the only output; the prompt's id.

    One that waits or works already is left alone. Raises `UserError` where there is none, and where it is not valid
    any more.
    """
    server = PromptServer.instance
    if (known := _queued.get(folder)) is not None and _in_queue(server, known):
        return known
    graph = _stored(folder, name)
    trainer = _output(folder, graph)
    server.node_replace_manager.apply_replacements(graph)
    prompt_id = str(uuid.uuid4())
    valid, error, outputs, node_errors = await execution.validate_prompt(
        prompt_id, graph, [trainer]
    )
    if valid:
        await asyncio.to_thread(require_clips, folder, name)
    else:
        raise UserError(
            f"The workflow of {name} is not valid any more: {_in_words(error, node_errors, graph)}",
            "It needs the same files, folders and nodes as when the run began.",
            f"Put them back, or open {folder / PROMPT} in ComfyUI, mend it and queue it.",
        )
    extra: dict[str, Any] = {"create_time": int(time.time() * 1000)}
    if (page := folder / WORKFLOW).is_file():
        extra["extra_pnginfo"] = {"workflow": json.loads(page.read_text(encoding="utf-8"))}
    number = server.number
    server.number += 1
    server.prompt_queue.put((number, prompt_id, graph, extra, outputs, {}))
    _queued[folder] = prompt_id
    return prompt_id


def _with_ancestors(whole: Mapping[str, Any], node_id: str) -> Graph:
    graph: Graph = {}
    waiting = [node_id]
    while waiting:
        found = waiting.pop()
        if found in graph or found not in whole:
            continue
        # The host notes into a graph what it has found changed, and does not look again where that stands.
        graph[found] = {key: value for key, value in whole[found].items() if key != "is_changed"}
        waiting += _sources(whole[found])
    return graph


def _sources(node: Mapping[str, Any]) -> list[str]:
    """The nodes from which it takes something; a link is [node, output]."""
    links = [value for value in node.get("inputs", {}).values() if isinstance(value, list)]
    return [link[0] for link in links if len(link) == 2 and isinstance(link[0], str)]


def _stored(folder: Path, name: str) -> Graph:
    path = folder / PROMPT
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = "was not kept"
    except ValueError as error:
        problem = f"cannot be read ({error})"
    raise UserError(
        f"The workflow of {name} {problem}.",
        f"A run keeps it in {path} when it begins.",
        "Queue its workflow from the page or your script: the run goes on where it was.",
    )


def _output(folder: Path, graph: Graph) -> str:
    """The trainer: the only node from which no other takes anything."""
    taken = {source for node in graph.values() for source in _sources(node)}
    last = [node_id for node_id in graph if node_id not in taken]
    if len(last) == 1:
        return last[0]
    raise UserError(
        f"{folder / PROMPT} has {len(last)} nodes from which no other takes anything.",
        "As it was kept it has one: the trainer.",
        "Queue the workflow from the page or your script: the run goes on where it was.",
    )


def _in_queue(server: PromptServer, prompt_id: str) -> bool:
    running, waiting = server.prompt_queue.get_current_queue()
    return any(item[1] == prompt_id for item in (*running, *waiting))


def _in_words(error: Mapping[str, Any] | None, node_errors: Mapping[str, Any], graph: Graph) -> str:
    """Every node's own errors, or what is wrong with the whole."""
    found = [
        f"{_title(graph, node_id)}: {said}"
        for node_id, about in node_errors.items()
        for said in _once(about["errors"])
    ]
    if not found and error is not None:
        found = [f"{error['message']} {error['details']}".strip()]
    return "; ".join(found) or "the host does not say why."


def _once(errors: Iterable[Mapping[str, Any]]) -> list[str]:
    """A check of several inputs together is reported for each of them: `NAME - reason`."""
    texts: dict[str, str] = {}
    for error in errors:
        details = str(error["details"])
        input_name = error.get("extra_info", {}).get("input_name") or ""
        reason = details.removeprefix(input_name).lstrip(" -") if input_name else details
        texts.setdefault(reason, f"{error['message']} {details}".strip())
    return list(texts.values())


def _title(graph: Graph, node_id: str) -> str:
    node = graph.get(node_id, {})
    return node.get("_meta", {}).get("title") or node.get("class_type", node_id)
