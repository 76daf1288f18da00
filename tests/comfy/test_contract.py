"""The nodes' ids, sockets, types and order are for ever: saved workflows and scripts depend on them."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.comfy
GOLDEN = Path(__file__).parents[1] / "golden" / "nodes.json"
# Required are only sockets, and these: everything with a default can be left out of a prompt.
REQUIRED_WIDGETS = {"folder", "name", "preset", "text_encoder", "width", "height", "frames"}
SOCKETS = ("MODEL", "CLIP", "VAE", "CONDITIONING", "LATENT", "TANDEM_")


def test_the_contract_is_the_one_that_was_promised(nodes):
    """A change here breaks somebody's graph: inputs are added as optional, outputs at the end, nothing goes."""
    assert json.loads(GOLDEN.read_text()) == {name: _contract(info) for name, info in nodes.items()}


def test_every_input_but_sockets_and_names_can_be_left_out(nodes):
    for name, info in nodes.items():
        for key, entry in info["input"].get("required", {}).items():
            assert _kind(entry).startswith(SOCKETS) or key in REQUIRED_WIDGETS, (name, key)


def test_a_choice_begins_with_its_default(nodes):
    for name, info in nodes.items():
        for key, entry in _inputs(info).items():
            options = entry[1].get("options", entry[0] if isinstance(entry[0], list) else [])
            if options and "default" in entry[1] and key not in ("sampler_name", "scheduler"):
                assert options[0] == entry[1]["default"], (name, key)


def test_the_defaults_of_the_schema_are_those_of_execute(nodes):
    import inspect

    for name, info in nodes.items():
        parameters = inspect.signature(_classes()[name].execute).parameters
        for key, entry in info["input"].get("optional", {}).items():
            expected = entry[1].get("default")
            assert parameters[key].default == expected, (name, key)


def test_every_node_explains_itself(nodes):
    for name, info in nodes.items():
        assert len(info["description"]) > 40, name
        assert len(info["search_aliases"]) >= 2, name
        assert info["category"].startswith("Tandem/"), name
        for key, entry in _inputs(info).items():
            assert len(entry[1].get("tooltip", "")) > 15, (name, key)


def test_where_experts_are_chosen_the_node_says_which_runs_first(nodes):
    for name in ("TandemTrainer", "TandemApplyStack", "TandemDualSampler"):
        words = nodes[name]["description"].lower()
        assert ("first" in words and "second" in words) or "first:" in words, name


@pytest.fixture(scope="module")
def nodes(comfy):
    return {name: node.GET_NODE_INFO_V1() for name, node in _classes().items()}


def _classes():
    from tandem_wan.nodes.extension import TandemExtension

    # In a thread of its own: the browser tests leave an event loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(asyncio.run, TandemExtension().get_node_list()).result()
    return {node.GET_SCHEMA().node_id: node for node in found}


def _inputs(info):
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def _kind(entry):
    return "COMBO" if isinstance(entry[0], list) else entry[0]


def _contract(info):
    return {
        "required": {k: _kind(e) for k, e in info["input"].get("required", {}).items()},
        "optional": {
            k: [_kind(e), e[1].get("default")] for k, e in info["input"].get("optional", {}).items()
        },
        "outputs": [list(pair) for pair in zip(info["output_name"], info["output"], strict=True)],
    }
