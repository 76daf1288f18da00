"""The shipped workflows in the real front end."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
from tandem_wan.dev.page import PACK, load_workflow
from tandem_wan.dev.workflows import workflows, write_all

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).absolute().parents[2]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
HOST_MODULES = ("nodes", "comfy_extras.", f"custom_nodes.{PACK}")
FRONT_END_TYPES = {"MarkdownNote"}
SHRINKING_TYPES = {"SaveVideo"}
"""They are described at the height that their video takes after a run; the front end opens them flat."""

UNKNOWN_TYPES = """() => app.graph.nodes.map(node => node.type)
    .filter(type => !(type in LiteGraph.registered_node_types))"""
PROMPT = "async () => (await app.graphToPrompt()).output"
UNLISTED_VALUES = """() => app.graph.nodes.flatMap(node => (node.widgets ?? [])
    .filter(widget => widget.type === "combo")
    .filter(widget => !widget.options.values.includes(widget.value))
    .map(widget => `${node.title}: ${widget.name} = ${widget.value}`))"""
PLACES = "() => app.graph.nodes.map(node => [String(node.id), [...node.pos, ...node.size]])"

every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


@every_workflow
def test_a_workflow_opens_whole_and_queues_as_its_api_twin(page, path):
    check_opened(page, path)


def test_every_workflow_opens_so_in_nodes_2_as_well(page):
    page.evaluate("app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    for path in WORKFLOWS:
        check_opened(page, path)


def test_nodes_open_at_their_described_size_and_do_not_overlap(page):
    for path in WORKFLOWS:
        load_workflow(page, path.stem)
        nodes = json.loads(path.read_text())["nodes"]
        described = {str(node["id"]): [*node["pos"], *node["size"]] for node in nodes}
        flat = {str(node["id"]) for node in nodes if node["type"] in SHRINKING_TYPES}
        shown = dict(page.evaluate(PLACES))
        assert without(flat, shown) == without(flat, described), path.stem
        for one, other in combinations(described.values(), 2):
            assert not overlap(one, other), path.stem


def test_a_click_in_the_template_browser_opens_a_workflow(page):
    page.get_by_role("button", name="Templates").click()
    page.get_by_text(PACK, exact=True).click()
    for path in WORKFLOWS:
        card = page.get_by_test_id(f"template-workflow-{path.stem}")
        card.scroll_into_view_if_needed()  # pictures are loaded when they come into sight
        card.locator("img").first.wait_for()
    page.get_by_test_id("template-workflow-train_and_sample").scroll_into_view_if_needed()
    page.get_by_test_id("template-workflow-train_and_sample").click()
    page.wait_for_function("app.graph.nodes.some(node => node.type === 'TandemTrainer')")
    assert page.problems == []


def test_the_info_panel_shows_the_help_page_of_a_node(page):
    load_workflow(page, "train_and_sample")
    page.evaluate(
        "app.canvas.selectNode(app.graph.nodes.find(node => node.type === 'TandemTrainer'))"
    )
    page.get_by_test_id("info-button").click()
    help_page = (ROOT / "web" / "docs" / "TandemTrainer.md").read_text()
    page.get_by_text(first_words(help_page)).first.wait_for()


def test_the_template_browser_lists_every_workflow_with_a_picture(client):
    listed = client.get("/api/workflow_templates")[PACK]
    assert sorted(listed) == sorted(path.stem for path in WORKFLOWS) == sorted(workflows())
    for path in WORKFLOWS:
        assert path.with_suffix(".jpg").stat().st_size <= 60_000


def test_the_files_are_what_their_description_gives_today(client, tmp_path):
    write_all(client.object_info(), tmp_path)
    for path in WORKFLOWS:
        for name in (path.name, f"api/{path.name}"):
            assert (path.parent / name).read_text() == (tmp_path / name).read_text(), (
                f"workflows/{name} is out of date: run `python dev workflows` in the environment"
            )


@every_workflow
def test_a_workflow_needs_no_other_pack(client, path):
    modules = {name: entry["python_module"] for name, entry in client.object_info().items()}
    for node in json.loads(path.read_text())["nodes"]:
        if node["type"] not in FRONT_END_TYPES:
            assert modules[node["type"]].startswith(HOST_MODULES)


def check_opened(page, path: Path) -> None:
    """The workflow is on the canvas with nothing missing, and the page would queue its API twin."""
    load_workflow(page, path.stem)
    assert page.evaluate(UNKNOWN_TYPES) == []
    assert page.evaluate(UNLISTED_VALUES) == []
    twin = json.loads((path.parent / "api" / path.name).read_text())
    assert plain(page.evaluate(PROMPT)) == plain(twin)
    page.wait_for_timeout(1000)  # what is missing is found after the graph stands
    assert page.get_by_test_id("error-overlay").count() == 0
    assert page.get_by_role("dialog").count() == 0
    assert page.problems == []


def plain(prompt: dict) -> str:
    """JSON in which 1 and 1.0 are the same, as they are in the browser, and nothing else is."""
    return json.dumps(json.loads(json.dumps(prompt), parse_float=number), sort_keys=True, indent=1)


def number(text: str) -> float | int:
    value = float(text)
    return int(value) if value.is_integer() else value


def without(ids: set[str], places: dict[str, list[float]]) -> dict[str, list[float]]:
    return {number: place for number, place in places.items() if number not in ids}


def overlap(one: list[float], other: list[float]) -> bool:
    """Whether two nodes share a point, their titles included."""
    title_px = 30
    apart = (
        one[0] + one[2] <= other[0]
        or other[0] + other[2] <= one[0]
        or one[1] + one[3] <= other[1] - title_px
        or other[1] + other[3] <= one[1] - title_px
    )
    return not apart


def first_words(markdown: str) -> str:
    """How the first sentence of a help page begins."""
    paragraph = next(line for line in markdown.splitlines() if line and not line.startswith("#"))
    return paragraph.split(",")[0]
