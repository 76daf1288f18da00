"""The stack nodes as the host runs them: queued, linked, cached, refused; and the way to other packs and back."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

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


class Host:
    """The host's own validation and execution, with our nodes and two of the test's."""

    def __init__(self, folder, classes):
        import execution

        self.folder, self.nodes, self.kept, self.given = folder, classes, {}, []
        self._execution = execution
        server = SimpleNamespace(
            client_id=None, last_node_id=None, last_prompt_id=None, send_sync=_nothing
        )
        self._executor = execution.PromptExecutor(
            server, cache_type=execution.CacheType.CLASSIC, cache_args={"ram": 0, "ram_inactive": 0}
        )

    def lora(self, name, *, trigger="", rank=2):
        """A small LoRA that the tiny networks have a layer for."""
        path = self.folder / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        layer = "diffusion_model.blocks.0.self_attn.q"
        tensors = {
            f"{layer}.lora_A.weight": torch.full((rank, 128), 0.01),
            f"{layer}.lora_B.weight": torch.full((128, rank), 0.01),
        }
        metadata = {"tandem": json.dumps({"trigger": trigger})} if trigger else {}
        save_file(tensors, path, metadata=metadata)

    def give(self, value):
        self.given.append(value)
        return self.node("TestGive", index=self.given.index(value))

    @staticmethod
    def node(class_type, **inputs):
        return {"class_type": class_type, "inputs": inputs}

    def stack(self, prompt=None, **inputs):
        stack, self.triggers, self.report = self.run(prompt, "TandemLoraStack", **inputs)
        return stack

    def run(self, prompt, class_type, **inputs):
        prompt = self._whole(prompt, class_type, inputs)
        valid, error, good, _ = self._validate(prompt)
        assert valid, error
        executor = self._executor
        self.made = 0
        with ThreadPoolExecutor(1) as thread, torch.inference_mode():
            thread.submit(executor.execute, prompt, "prompt", {}, good).result()
        for event, data in executor.status_messages:
            if event == "execution_error":
                raise RuntimeError(data["exception_message"])
            if event == "execution_cached":
                self.made = int("node" not in data["nodes"])
        return [self.kept[n] for n in range(3) if n in self.kept]

    def refused(self, prompt, **inputs):
        prompt = self._whole(prompt, "TandemLoraStack", inputs)
        valid, _, _, errors = self._validate(prompt)
        assert not valid
        said = " ".join(f"{e['message']} {e['details']}" for e in errors["node"]["errors"])
        assert "Exception" not in said
        return SimpleNamespace(search=lambda pattern: _found(pattern, said))

    def _whole(self, prompt, class_type, inputs):
        count = {"TandemLoraStack": 3, "TandemApplyStack": 3, "TandemToLoraStack": 3}.get(
            class_type, 2
        )
        whole = {**(prompt or {}), "node": self.node(class_type, **inputs)}
        keeps = [f"keep_{n}" for n in range(count) if class_type != "TandemApplyStack" or n == 2]
        whole |= {
            k: self.node("TestKeep", value=["node", int(k[-1])], place=int(k[-1])) for k in keeps
        }
        self.kept.clear()
        if class_type == "TandemApplyStack":
            self.kept |= {0: None, 1: None}
        return json.loads(json.dumps(whole))

    def _validate(self, prompt):
        with ThreadPoolExecutor(1) as thread:
            check = self._execution.validate_prompt("prompt", prompt, None)
            return thread.submit(asyncio.run, check).result()


@pytest.fixture
def host(comfy, tmp_path, monkeypatch):
    import folder_paths
    from comfy_api.latest import io
    from tandem_wan.nodes.interop import TandemFromLoraStack, TandemToLoraStack
    from tandem_wan.nodes.stack import TandemApplyStack, TandemLoraStack

    import nodes

    ours = [TandemLoraStack, TandemApplyStack, TandemFromLoraStack, TandemToLoraStack]
    host = Host(tmp_path / "loras", ours)

    class TestGive(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(
                "TestGive", inputs=[io.Int.Input("index")], outputs=[io.AnyType.Output()]
            )

        @classmethod
        def execute(cls, index):
            return io.NodeOutput(host.given[index])

    class TestKeep(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            inputs = [io.AnyType.Input("value"), io.Int.Input("place")]
            return io.Schema("TestKeep", is_output_node=True, not_idempotent=True, inputs=inputs)

        @classmethod
        def fingerprint_inputs(cls, **_):
            return float("nan")

        @classmethod
        def execute(cls, value, place):
            host.kept[place] = value
            return io.NodeOutput()

    for node in (*ours, TestGive, TestKeep):
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, node.GET_SCHEMA().node_id, node)
    (tmp_path / "loras").mkdir()
    roots = ([str(tmp_path / "loras")], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", roots)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    for name in ("x_high_noise", "x_low_noise", "style"):
        host.lora(name)
    return host


def _nothing(*_):
    pass


def _found(pattern, text):
    import re

    assert re.search(pattern, text, re.DOTALL), text
    return True
