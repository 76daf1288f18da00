"""The recipe of every applied stack goes into what a prompt saves, also when the stack comes from the cache.

Savers write `extra_pnginfo`, one dict that all nodes of a prompt share. A client may send none, and a node whose
outputs are cached is not called. So each prompt gets its entry when it is queued, and the entry is filled by the
stack node of that prompt, or by an earlier or later call of a node with the same graph above it: the one from
which the cached outputs come.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Any

from server import PromptServer

from ...wan.lora.recipes import recipe_document
from ...wan.lora.stack import LoraStack
from .graph_stacks import inputs_of, link_of, signature, stack_links
from .recipes import ENTRY_VERSION, KEY, recipe_here

MOST_REMEMBERED = 256


class _Entry(dict[str, Any]):
    """The `tandem` entry of one prompt; a plain dict cannot be referred to weakly."""

    __slots__ = ("__weakref__",)


class RecipeBook:
    """Recipes by the signature of their graph, and the entries of the prompts that have not ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # prompts are queued in the event loop and run in the worker
        self._made: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._open: list[tuple[weakref.ref[_Entry], dict[str, str]]] = []

    def open(self, wanted: dict[str, str]) -> dict[str, Any]:
        """A new entry for a prompt: id of each stack node -> signature of its stack."""
        with self._lock:
            known = {node: self._made[sign] for node, sign in wanted.items() if sign in self._made}
            entry = _Entry(version=ENTRY_VERSION, stacks=known)
            self._open = [item for item in self._open if item[0]() is not None]
            self._open.append((weakref.ref(entry), wanted))
        return entry

    def note(self, sign: str, document: dict[str, Any]) -> None:
        """A stack was made from the graph with this signature: into every entry that waits for it."""
        with self._lock:
            self._made[sign] = document
            self._made.move_to_end(sign)
            while len(self._made) > MOST_REMEMBERED:
                self._made.popitem(last=False)
            for reference, wanted in self._open:
                if (entry := reference()) is not None:
                    nodes = [node for node, wished in wanted.items() if wished == sign]
                    put(entry, nodes, document)


def put(entry: dict[str, Any], nodes: list[str], document: dict[str, Any]) -> None:
    """Replaces `stacks` whole: another thread may be writing the entry out as JSON."""
    if nodes:
        entry["stacks"] = {**entry["stacks"], **dict.fromkeys(nodes, document)}


book = RecipeBook()


def open_entry(queued: dict[str, Any]) -> dict[str, Any]:
    """Called by the host with each prompt that is queued: gives one with stacks an entry in `extra_pnginfo`."""
    graph = queued.get("prompt")
    if isinstance(graph, dict) and (links := stack_links(graph)):
        extra = queued.get("extra_data") or {}
        info = extra.get("extra_pnginfo") or {}
        wanted = {node: signature(graph, link) for node, link in links.items()}
        entry = book.open(wanted)
        queued["extra_data"] = {**extra, "extra_pnginfo": {**info, KEY: entry}}
    return queued


def record_stack(hidden: Any, stack: LoraStack) -> None:  # noqa: ANN401 - the host's holder of hidden inputs
    """Tandem Apply Stack tells the prompt what it applied; `hidden` has its id, the prompt and extra_pnginfo."""
    document = recipe_document(recipe_here(stack))
    node, graph, info = hidden.unique_id, hidden.prompt or {}, hidden.extra_pnginfo
    if link := link_of(inputs_of(graph, node), "stack"):
        book.note(signature(graph, link), document)
    if isinstance(info, dict):
        # A node of an expanded graph has no place in the prompt, so it is written here.
        entry = info.setdefault(KEY, {"version": ENTRY_VERSION, "stacks": {}})
        put(entry, [str(node)], document)


def register_recorder() -> None:
    """Asks the host to tell of queued prompts, where there is a server."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and open_entry not in server.on_prompt_handlers:
        server.add_on_prompt_handler(open_entry)
