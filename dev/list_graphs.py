"""Graphs in the host within this process, for nodes that take and give lists."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

Part = dict[str, Any]


class Blocked(Exception):  # noqa: N818 - what the host calls it
    """A node was not run, and says why."""


class _Server:
    """Stands in for the host's server: remembers what would be sent to a page."""

    client_id, last_node_id, last_prompt_id = "test", None, None

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []

    def send_sync(self, event: str, data: Any, *_: object) -> None:
        self.sent.append((event, data))


def node(class_type: str, **inputs: object) -> Part:
    """A node; links are [number of the node in the graph, output]."""
    return {"class_type": class_type, "inputs": inputs}


def give(values: Sequence[object]) -> Part:
    """A node whose output is the list `values`."""
    return node("TestGiveList", values=values)


class ListGraphs:
    """The host's validation and execution with the given nodes of ours and modules of the host's nodes."""

    def __init__(self, monkeypatch: Any, ours: Sequence[type], modules: Sequence[Any]) -> None:
        import nodes

        self._given: list[Sequence[object]] = []
        self._kept: dict[int, list[object]] = {}
        classes = [*ours, *_test_nodes(self._given, self._kept)]
        for module in modules:
            extension = _apart(module.comfy_entrypoint())
            classes += _apart(extension.get_node_list())
        for each in classes:
            name = each.GET_SCHEMA().node_id
            monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, each)

    def run(self, *parts: Part, whole: bool = False, keep: int | list[int] = 2) -> list[Any]:
        """The first `keep` outputs of the last node, or the listed ones: a single value of each, or the `whole` list.

        Raises `ValueError` when the host refuses the graph, `RuntimeError` when a node fails, `Blocked` when one is
        not run.
        """
        import execution

        self._kept.clear()
        outputs = list(range(keep)) if isinstance(keep, int) else keep
        prompt = self._prompt(parts, outputs)
        valid, error, good, errors = _apart(execution.validate_prompt("prompt", prompt, None))
        if not valid:
            said = [e["message"] + " " + e["details"] for n in errors.values() for e in n["errors"]]
            raise ValueError(f"{error} {said}")
        server = _Server()
        executor = execution.PromptExecutor(
            server,
            cache_type=execution.CacheType.CLASSIC,
            cache_args={"ram": 0, "ram_inactive": 0},
        )
        with ThreadPoolExecutor(1) as thread:
            thread.submit(_execute, executor, prompt, good).result()
        _raise_for([*executor.status_messages, *server.sent])
        return [self._kept[n] if whole else self._kept[n][0] for n in outputs]

    def _prompt(self, parts: Sequence[Part], keep: Sequence[int]) -> dict[str, Part]:
        prompt = {}
        for number, part in enumerate(parts):
            inputs = part["inputs"]
            if part["class_type"] == "TestGiveList":
                self._given.append(inputs["values"])
                inputs = {"index": len(self._given) - 1}
            links = {k: [str(v[0]), v[1]] for k, v in inputs.items() if isinstance(v, list)}
            prompt[str(number)] = {**part, "inputs": {**inputs, **links}}
        for output in keep:
            last = [str(len(parts) - 1), output]
            prompt[f"keep_{output}"] = node("TestKeepList", value=last, place=output)
        return json.loads(json.dumps(prompt))


def _test_nodes(given: list[Sequence[object]], kept: dict[int, list[object]]) -> list[type]:
    from comfy_api.latest import io

    class TestGiveList(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            outputs = [io.AnyType.Output(is_output_list=True)]
            return io.Schema("TestGiveList", inputs=[io.Int.Input("index")], outputs=outputs)

        @classmethod
        def execute(cls, index: int) -> io.NodeOutput:
            return io.NodeOutput(given[index])

    class TestKeepList(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            inputs = [io.AnyType.Input("value", optional=True), io.Int.Input("place")]
            return io.Schema("TestKeepList", is_input_list=True, is_output_node=True, inputs=inputs)

        @classmethod
        def execute(cls, place: list[int], value: Sequence[object] = ()) -> io.NodeOutput:
            kept[place[0]] = list(value)
            return io.NodeOutput()

    return [TestGiveList, TestKeepList]


def _execute(executor: Any, prompt: dict[str, Part], good: list[str]) -> None:
    with torch.inference_mode():
        executor.execute(prompt, "prompt", {}, good)


def _raise_for(messages: Sequence[tuple[str, Any]]) -> None:
    for event, data in messages:
        if event == "execution_error":
            blocked = data["exception_type"] == "ExecutionBlocked"
            raise (Blocked if blocked else RuntimeError)(data["exception_message"])


def _apart(work: Any) -> Any:
    """The result of a coroutine, run in a thread of its own: this one may have an event loop already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
