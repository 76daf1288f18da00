"""The stack nodes as the host runs them: queued, linked, cached, refused; and the way to other packs and back."""

from __future__ import annotations

import json
import time

import pytest

pytestmark = pytest.mark.comfy
HIGH, LOW = "x_high_noise.safetensors", "x_low_noise.safetensors"


def test_json_and_flat_inputs_are_one_stack(host):
    rows = [{"lora": HIGH, "strength": 0.5}, {"lora": "style.safetensors", "on": False}]
    flat = {
        "loras.0.lora_name": HIGH,
        "loras.0.strength": 0.5,
        "loras.7.lora_name": "style.safetensors",
        "loras.7.enabled": False,
    }
    stacks = [host.stack(rows=json.dumps(rows)), host.stack(**flat)]
    mixed = host.stack(
        rows=json.dumps(rows[:1]), **{k: v for k, v in flat.items() if k.startswith("loras.7")}
    )
    assert stacks[0] == stacks[1] == mixed
    assert stacks[0].rows[0].high == 0.5


def test_a_row_takes_its_other_half_and_the_report_says_so(host):
    stack = host.stack(rows=json.dumps([{"lora": LOW}]))
    assert (stack.rows[0].lora, stack.rows[0].lora_low) == (HIGH, LOW)
    assert f"Row 1: {LOW} takes its other half {HIGH} (high noise)" in host.report
    assert "1 of 1 rows on" in host.report


def test_candidates_are_named_and_nothing_is_taken(host):
    host.lora("run-h-e8")
    host.lora("run-l-e8")
    stack = host.stack(rows='[{"lora": "run-h-e8.safetensors"}]')
    assert stack.rows[0].lora_low is None
    assert "may belong with run-l-e8.safetensors" in host.report


def test_every_field_of_a_row_can_be_a_link(host):
    fields = {
        "lora": "style.safetensors",
        "lora_low": LOW,
        "on": True,
        "high": 0.7,
        "low": 0.3,
        "route": "low",
        "kind": "style",
        "schedule": "0.2 -> 1",
        "schedule_low": "1",
        "blend.lora": HIGH,
        "blend.share": 0.25,
    }
    prompt = {f"give_{key}": host.give(value) for key, value in fields.items()}
    links = {f"loras.0.{key}": [f"give_{key}", 0] for key in fields}
    linked = host.stack(prompt, **links)
    assert linked == host.stack(**{f"loras.0.{key}": value for key, value in fields.items()})
    row = linked.rows[0]
    assert (row.lora, row.high, row.route, row.blend.share) == (
        "style.safetensors",
        0.7,
        "low",
        0.25,
    )


def test_a_link_that_gives_a_bad_value_is_named_when_the_node_runs(host):
    with pytest.raises(RuntimeError, match=r"Row loras\.0: route is 'up'"):
        host.stack(
            {"give": host.give("up")}, **{"loras.0.lora": HIGH, "loras.0.route": ["give", 0]}
        )


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"loras.0.lora": HIGH, "loras.0.strenght": 1.0}, r"Row loras\.0 has strenght\..*Check the spelling"),
        ({"loras.0.lora_name": "gone.safetensors"}, r"Row 1: The LoRA 'gone\.safetensors' is not in a loras folder"),
        ({"loras.0.lora": ["give", 0], "loras.0.route": "up"}, r"Row loras\.0: route is 'up'"),
        ({"row": "[]"}, r"There is an input 'row'"),
        ({"rows": '[{"lora": "x_high_noise.safetensors", "strenght": 1}]'}, r"Row 1 has strenght"),
        ({"rows": '[{"lora": "gone.safetensors"}]'}, r"Row 1: The LoRA 'gone\.safetensors'"),
        ({"rows": '[{"lora": "style.safetensors", "schedule": "fast"}]'}, r"Row 1, schedule: .*'fast'"),
        ({"rows": '[{"lora": "style.safetensors", "kind": "stile"}]'}, r"Row 1: kind is 'stile'.*speed, style"),
        ({"rows": '[{"lora": "style.safetensors", "blend": {"lora": "gone"}}]'}, r"Row 1: The LoRA 'gone'"),
        ({"rows": '[{"lora": "style.safetensors", "blend": {"lora": "style.safetensors", "share": 2}}]'},
         r"Row 1: blend: share is 2"),
        ({"rows": '[{"lora": "broken.safetensors"}]'}, r"Row 1: broken\.safetensors"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_when_the_prompt_is_queued(host, inputs, says):
    (host.folder / "broken.safetensors").write_bytes(b"no safetensors")
    prompt = {"give": host.give("x")}
    assert host.refused(prompt, **inputs).search(says)


def test_a_row_that_is_off_may_name_a_file_that_is_not_there(host):
    assert host.stack(rows='[{"lora": "gone.safetensors", "on": false}]').active() == ()


def test_folders_are_found_in_the_spelling_of_another_system(host):
    host.lora("sub/deep")
    stack = host.stack(rows=json.dumps([{"lora": "sub\\deep.safetensors"}]))
    assert stack.rows[0].lora == "sub/deep.safetensors"


def test_a_broken_neighbour_is_nobodys_error(host):
    (host.folder / LOW).write_bytes(b"no safetensors")
    assert host.stack(rows=json.dumps([{"lora": "style.safetensors"}])).rows[0].lora_low is None


def test_triggers_of_active_rows_come_once_in_the_order_of_the_stack(host):
    host.lora("one", trigger="ONE")
    host.lora("two", trigger="TWO")
    (host.folder / "style.civitai.info").write_text('{"trainedWords": ["neon, rain", "one"]}')
    rows = [
        {"lora": "two.safetensors"},
        {"lora": "one.safetensors", "on": False},
        {"lora": "one.safetensors", "strength": 0.0},
        {"lora": "style.safetensors"},
    ]
    stack = host.stack(rows=json.dumps(rows))
    assert stack.triggers == ("TWO", "neon, rain", "one")
    assert host.triggers == "TWO, neon, rain, one"
    assert "Trigger: neon, rain (style.civitai.info)" in host.report


def test_a_stack_on_another_pairs_over_both(host):
    prompt = {"before": host.node("TandemLoraStack", rows=json.dumps([{"lora": HIGH}]))}
    stack = host.stack(prompt, rows=json.dumps([{"lora": LOW}]), stack=["before", 0])
    assert [(row.lora, row.lora_low, row.route) for row in stack.rows] == [
        (HIGH, None, "high"),
        (LOW, None, "low"),
    ]


def test_a_file_that_comes_twice_is_a_warning(host):
    stack = host.stack(rows=json.dumps([{"lora": "style.safetensors"}] * 2))
    assert len(stack.rows) == 2
    assert (
        "Warning: style.safetensors is in rows 1 and 2: their strengths add up, to 2" in host.report
    )


@pytest.mark.parametrize("linked", [False, True])
def test_a_stack_is_made_anew_when_a_file_changes_and_only_then(host, linked):
    prompt = {"give": host.give(HIGH)}
    inputs = {"loras.0.lora": ["give", 0] if linked else HIGH}
    host.stack(prompt, **inputs)
    host.stack(prompt, **inputs)
    assert host.made == 0
    host.lora(LOW.removesuffix(".safetensors"), rank=3)
    host.stack(prompt, **inputs)
    assert host.made == 1
    (host.folder / LOW).unlink()
    assert host.stack(prompt, **inputs).rows[0].lora_low is None


def test_five_hundred_rows_are_checked_and_made_in_seconds(host):
    for n in range(20):
        host.lora(f"many{n}")
    flat = {f"loras.{n}.lora": f"many{n % 20}.safetensors" for n in range(500)}
    began = time.perf_counter()
    assert len(host.stack(**flat).rows) == 500
    assert time.perf_counter() - began < 5


def test_lists_of_other_packs_become_rows(host):
    prompt = {
        "give": host.give([(HIGH, 0.8, 1.0), ("None", 1.0, 1.0), ("style.safetensors", 0.5, 0.0)])
    }
    made = host.run(prompt, "TandemFromLoraStack", lora_stack=["give", 0])
    rows = [(row.lora, row.lora_low, row.high, row.low, row.route) for row in made[0].rows]
    assert rows == [(HIGH, LOW, 0.8, 0.8, "auto"), ("style.safetensors", None, 0.5, 0.5, "auto")]
    assert "2 rows from LORA_STACK" in made[1]


def test_lists_of_other_packs_tell_their_triggers_as_rows_do(host):
    host.lora("one", trigger="ONE")
    host.lora("two", trigger="TWO")
    host.lora("off", trigger="OFF")
    prompt = {
        "before": host.node("TandemLoraStack", **{"loras.0.lora": "two.safetensors"}),
        "give": host.give(
            [("one.safetensors", 0.8, 1.0), ("two.safetensors", 0.5, 1), ("off.safetensors", 0, 1)]
        ),
    }
    made = host.run(prompt, "TandemFromLoraStack", lora_stack=["give", 0], stack=["before", 0])
    assert made[0].triggers == ("TWO", "ONE")
    assert "Trigger: ONE (" in made[1]


@pytest.mark.parametrize("socket", ["lora_stack", "lora_stack_low"])
def test_a_list_for_low_noise_alone_goes_there_alone(host, socket):
    made = host.run(
        {"give": host.give([(LOW, 0.8, 1.0)])}, "TandemFromLoraStack", **{socket: ["give", 0]}
    )
    assert made[0].rows[0].route == ("low" if socket == "lora_stack_low" else "auto")


def test_no_list_at_all_says_what_to_connect(host):
    with pytest.raises(RuntimeError, match="Neither lora_stack nor lora_stack_low is connected"):
        host.run({}, "TandemFromLoraStack")


def test_a_stack_goes_to_other_packs_and_comes_back(host):
    host.lora("sub/deep")
    rows = [
        {"lora": HIGH, "high": 0.9, "low": 0.7},
        {"lora": "sub/deep.safetensors", "route": "low", "low": 0.4, "schedule": "0.2 -> 1"},
        {"lora": "style.safetensors", "on": False},
    ]
    prompt = {
        "stack": host.node("TandemLoraStack", rows=json.dumps(rows)),
        "lists": host.node("TandemToLoraStack", stack=["stack", 0]),
        "back": host.node("TandemFromLoraStack", lora_stack=["lists", 0], lora_stack_low=["lists", 1]),
    }  # fmt: skip
    high, low, report = host.run(prompt, "TandemToLoraStack", stack=["back", 0])
    assert high == [(HIGH, 0.9, 0.9)]
    assert low == [(LOW, 0.7, 0.7), ("sub/deep.safetensors", 0.4, 0.4)]
    assert all(type(entry) is tuple and len(entry) == 3 for entry in (*high, *low))
    _, _, first = host.run(prompt, "TandemToLoraStack", stack=["stack", 0])
    assert "row 2 has a strength schedule" in first
    assert "schedule" not in report


@pytest.mark.parametrize("single", [True, False])
def test_a_single_model_takes_the_file_that_was_named_and_two_experts_the_pair(host, pair, single):
    prompt = {
        "stack": host.node("TandemLoraStack", rows=json.dumps([{"lora": LOW, "high": 0.5}])),
        "high": host.give(pair["high_noise"]),
        "low": host.give(pair["low_noise"]),
    }
    models = {"model_high": ["high", 0]} | ({} if single else {"model_low": ["low", 0]})
    made = host.run(prompt, "TandemApplyStack", stack=["stack", 0], **models)
    report = made[2]
    assert f"{LOW} -> {'single' if single else 'low_noise'}" in report
    assert (f"{HIGH} -> high_noise" in report) is not single
    assert (f"Row 1: {LOW} takes its other half {HIGH}" in report) is not single


def test_high_noise_first_low_noise_second_is_said_wherever_a_stack_is_made(host):
    for node in host.nodes:
        words = node.GET_NODE_INFO_V1()["description"]
        assert "noise runs first (motion, layout), low noise second (detail)" in words.replace(
            "High", "high"
        )
