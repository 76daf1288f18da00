"""A run in the background, on its trainer in the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect
from tandem_wan.dev.page import PACK, load_workflow, wait_until_ready

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).absolute().parents[2]
WAIT_MS = 60_000
RENDERERS = pytest.mark.parametrize("nodes_2", [False, True], ids=["classic", "nodes_2"])

TRAINER = "app.graph.nodes.find(node => node.type === 'TandemTrainer')"
QUEUE = """async ([name, steps]) => {
    const of = type => app.graph.nodes.find(node => node.type === type);
    const set = (type, values) => {
        for (const [name, value] of Object.entries(values))
            of(type).widgets.find(widget => widget.name === name).value = value;
    };
    set("TandemDataset", { frames: 9 });
    set("TandemEditPlan", { changes: JSON.stringify({ steps, checkpoint_blocks: false }) });
    set("TandemTrainer", { name, mode: "background" });
    await app.queuePrompt(0, 1, [String(of("TandemTrainer").id)]);
}"""
NAME = f"""name => {{
    {TRAINER}.widgets.find(widget => widget.name === "name").value = name;
}}"""
VALUES = """() => app.graph.serialize().nodes.map(node => [node.id, node.widgets_values ?? null])"""
INPUTS = f"""async () => {{
    const {{ output }} = await app.graphToPrompt();
    return Object.keys(output[{TRAINER}.id].inputs).sort();
}}"""
CENTRE = f"""() => {{
    const [x, y, width, height] = {TRAINER}.boundingRect;
    app.canvas.ds.fitToBounds([x, y, width, height], {{ zoom: 0.7 }});
    app.canvas.setDirty(true, true);
}}"""
TELL = """run => comfyAPI.api.api.dispatchEvent(new CustomEvent("tandem.job", { detail: run }))"""
SUMMARY = {
    "id": "0" * 16,
    "name": "demo",
    "state": "running",
    "step": 30,
    "steps": 120,
    "text": "running, step 30 of 120, 0.50 s a step, 0:45 left\nloss: high 0.1000, low 0.2000",
    "message": "",
    "wish": "",
    "position": 0,
    "changed": 1.0,
}


@RENDERERS
def test_a_run_is_on_its_trainer_and_can_be_paused_resumed_and_stopped(trainer_page, nodes_2):
    page, name = trainer_page, f"buttons_{nodes_2}"
    set_renderer(page, nodes_2)
    load_workflow(page, "train_and_sample")
    inputs = page.evaluate(INPUTS)
    expect(view(page)).to_have_count(0)

    page.evaluate(QUEUE, [name, 800])
    values = page.evaluate(VALUES)
    page.evaluate(CENTRE)
    expect(view(page)).to_contain_text(re.compile(r"^running, step \d+ of 800, .* left"), **soon())
    expect(view(page)).to_contain_text(re.compile(r"loss: high \d\.\d+, low \d\.\d+"), **soon())
    assert page.evaluate(VALUES) == values
    assert page.evaluate(INPUTS) == inputs

    press(page, "Pause")
    expect(view(page)).to_contain_text("paused, step", **soon())
    expect(buttons(page)).to_have_text(["Resume", "Stop"])

    # No event comes while it is paused: this can only be from the list of runs.
    page.reload()
    wait_until_ready(page)
    page.wait_for_function(f"{TRAINER}?.widgets.length")
    page.evaluate(CENTRE)
    expect(view(page)).to_contain_text("paused, step", **soon())
    assert page.evaluate(VALUES) == values

    press(page, "Resume")
    expect(view(page)).to_contain_text("running, step", **soon())
    press(page, "Stop")
    expect(view(page)).to_contain_text("stopped, step", **soon())
    expect(buttons(page)).to_have_count(0)
    assert page.problems == []


def test_a_finished_run_says_done_and_leaves_with_its_name(trainer_page):
    page = trainer_page
    load_workflow(page, "train_and_sample")
    page.evaluate(QUEUE, ["short", 20])
    page.evaluate(CENTRE)
    expect(view(page)).to_contain_text(re.compile(r"^done, step (\d+) of \1\b"), **soon())
    assert bar(page) == 100
    expect(buttons(page)).to_have_count(0)

    page.evaluate(NAME, "another")
    expect(view(page)).to_have_count(0)
    page.evaluate(NAME, "short")
    expect(view(page)).to_have_count(1)
    assert page.problems == []


def test_the_view_says_what_is_told_and_offers_what_can_be_asked(page):
    load_workflow(page, "train_and_sample")
    page.evaluate(CENTRE)
    offered = [
        ({"state": "queued", "position": 1, "step": 0}, ["Stop"]),
        ({"state": "running"}, ["Pause", "Stop"]),
        ({"state": "running", "wish": "pause"}, ["Resume", "Stop"]),
        ({"state": "parked"}, ["Pause", "Stop"]),
        ({"state": "paused"}, ["Resume", "Stop"]),
        ({"state": "stopping", "wish": "stop"}, []),
        ({"state": "running", "position": None}, []),  # in another process
        ({"state": "cut off", "position": None}, []),
        ({"state": "done", "position": None, "step": 120}, []),
    ]
    for changes, expected in offered:
        run = {**SUMMARY, "text": f"{changes['state']}, as told", **changes}
        page.evaluate(TELL, run)
        expect(view(page)).to_contain_text(f"{changes['state']}, as told")
        expect(buttons(page)).to_have_text(expected)
        assert bar(page) == run["step"] / run["steps"] * 100
    assert page.problems == []


def test_a_refusal_is_shown_as_plain_text_until_the_state_changes(page):
    parts = {"came": "The run is <b>done</b>.", "can_be": "Nothing.", "to_do": "Look."}
    page.route(
        "**/tandem/jobs/*/pause",
        lambda route: route.fulfill(status=409, body=json.dumps({"error": parts})),
    )
    load_workflow(page, "train_and_sample")
    page.evaluate(CENTRE)
    page.evaluate(TELL, {**SUMMARY, "text": "running, <img src=x onerror=alert(1)>"})
    press(page, "Pause")
    alert = view(page).get_by_role("alert")
    expect(alert).to_have_text("The run is <b>done</b>. Nothing. Look.")
    expect(view(page)).to_contain_text("<img src=x onerror=alert(1)>")
    page.evaluate(TELL, {**SUMMARY, "state": "paused", "text": "paused"})
    expect(alert).to_be_hidden()
    # The browser itself reports an answer of 409.
    assert [problem for problem in page.problems if "409" not in problem] == []


def test_a_trainer_finds_its_run_in_a_subgraph_and_through_a_link(page):
    load_workflow(page, "train_and_sample")
    page.evaluate(TELL, SUMMARY)
    page.evaluate(f"""() => {{
        const text = LiteGraph.createNode("PrimitiveString");
        app.graph.add(text);
        text.widgets[0].value = "linked";
        const slot = {TRAINER}.inputs.findIndex(input => input.name === "name");
        text.connect(0, {TRAINER}, slot);
    }}""")
    expect(view(page)).to_have_count(0)
    page.evaluate(TELL, {**SUMMARY, "name": "linked"})
    page.evaluate(CENTRE)
    expect(view(page)).to_be_visible()
    # The text stays outside: its value comes in through the subgraph's own input.
    page.evaluate(f"""() => {{
        const {{ subgraph }} = app.graph.convertToSubgraph(new Set([{TRAINER}]));
        app.canvas.setGraph(subgraph);
    }}""")
    expect(view(page)).to_be_visible()
    assert page.problems == []


def test_what_an_answer_says_gives_way_to_a_later_event(page):
    """The pure modules, as the page loads them."""
    found = page.evaluate(f"""async () => {{
        const {{ RunList }} = await import("/extensions/{PACK}/lib/run_list.js");
        const {{ errorText, share, words }} = await import("/extensions/{PACK}/lib/job_text.js");
        const runs = new RunList();
        runs.tell({{ name: "a", state: "paused", changed: 2 }});
        runs.answer({{ name: "a", state: "running", changed: 1 }});
        const overtaken = runs.get("a").state;
        runs.replace([{{ name: "a", state: "cut off", changed: 2 }}], ["a"]);
        const listed = runs.get("a").state;
        runs.tell({{ name: "b", state: "running", changed: 3 }});
        runs.replace([], ["a"]);
        const left = runs.names();
        return [
            overtaken, listed, left, share({{ step: 3, steps: 0 }}),
            words({{ state: "running", text: "running, step 1", wish: "pause" }}),
            words({{ state: "stopped", text: "stopped, step 1", wish: "stop" }}),
            errorText({{ error: {{ came: "A.", can_be: "", to_do: "C." }} }}, 409), errorText(null, 502),
        ];
    }}""")
    assert found == [
        "paused",
        "cut off",
        ["b"],
        0,
        {"state": "running", "rest": ", step 1\npause after the current micro-batch"},
        {"state": "stopped", "rest": ", step 1"},
        "A.\nC.",
        "ComfyUI answered 502.",
    ]


def view(page):
    return page.locator(".tandem-job")


def buttons(page):
    return view(page).locator("button:visible")


def press(page, label):
    view(page).get_by_role("button", name=label).click(timeout=WAIT_MS)


def bar(page):
    return float(view(page).get_by_role("progressbar").get_attribute("aria-valuenow"))


def soon():
    return {"timeout": WAIT_MS, "use_inner_text": True}


def set_renderer(page, nodes_2):
    page.evaluate("on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", nodes_2)
