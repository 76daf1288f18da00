"""Files and rows that cannot be right: each gets an error or a remark of its own, and nothing else happens."""

from __future__ import annotations

import json
import os
import re
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tandem_wan.dev.lora_layouts import Expert, built, random_lora
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.families import Role
from tandem_wan.wan.lora.files import lora_header
from tandem_wan.wan.lora.judge import judge
from tandem_wan.wan.lora.report import Placement, header_report
from tandem_wan.wan.lora.stack import LoraStack, Row
from tandem_wan.wan.miniature.layouts import TransformerSize, transformer_layout

pytestmark = pytest.mark.comfy
Q = "diffusion_model.blocks.0.self_attn.q"


class Trap:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (os.environ["TANDEM_TRAP"],)


def truncated(world, path):
    path.write_bytes(world.good.read_bytes()[:-1000])


def cut_in_the_header(world, path):
    path.write_bytes(world.good.read_bytes()[:200])


def web_page(world, path):
    path.write_bytes(b"<!DOCTYPE html><html>404: not found</html>")


def empty(world, path):
    path.touch()


def checkpoint(world, path):
    save_file(load_file(world.checkpoint), path)


def pickle_with_code(world, path):
    torch.save(world.tensors | {"more": Trap()}, path)


def pickle_that_is_code(world, path):
    torch.save(Trap(), path)


def truncated_pickle(world, path):
    torch.save(world.tensors, path)
    path.write_bytes(path.read_bytes()[:-1000])


def all_nan(world, path):
    factors = {key: value for key, value in world.tensors.items() if value.ndim == 2}
    state = {key: torch.full_like(value, torch.nan) for key, value in factors.items()}
    save_file(world.tensors | state, path)


def of_another_kind(world, path):
    stem = "lora_unet_double_blocks_0_img_attn_qkv"
    state = {f"{stem}.lora_down.weight": torch.ones(4, 64)}
    save_file(state | {f"{stem}.lora_up.weight": torch.ones(64, 4)}, path)


BAD = [
    # what the file is, its suffix, what is said, whether the queue refuses it too
    (truncated, "safetensors", r"cannot be read as safetensors \(its tensors end at byte", True),
    (cut_in_the_header, "safetensors", r"its header would take [\d,]+ bytes of 200", True),
    (web_page, "safetensors", "truncated or not a safetensors file", True),
    (empty, "safetensors", "cannot be read as safetensors", True),
    (checkpoint, "safetensors", "holds no LoRA.*It looks like a whole Wan model", True),
    (pickle_with_code, "pt", "it holds more than tensors, which may be code", True),
    (pickle_that_is_code, "ckpt", "it holds more than tensors, which may be code", True),
    (truncated_pickle, "pt", "it is truncated or no PyTorch file", True),
    (all_nan, "safetensors", "not a number .*holds NaN or infinity.*Its training failed", False),
    (of_another_kind, "safetensors", "matches nothing.*no such layer.*double_blocks", False),
]


@pytest.mark.parametrize(
    ("make", "suffix", "says", "queue"), BAD, ids=lambda v: getattr(v, "__name__", "")
)
def test_a_bad_file_is_named_with_what_is_wrong_and_no_model_is_touched(
    world, make, suffix, says, queue
):
    path = world.folder / f"bad_{make.__name__}.{suffix}"
    make(world, path)
    for row in (Row(lora=path.name, route="both"), Row(lora=world.good.name, lora_low=path.name)):
        for unmatched in ("error", "warn", "ignore"):
            with pytest.raises(UserError) as caught:
                world.apply(row, unmatched=unmatched)
            said = str(caught.value)
            assert path.name in said and found(says, said), said
            assert caught.value.can_be.endswith(".") and caught.value.to_do.endswith(".")
    answer = world.check(lora=path.name)
    if queue:
        assert answer.startswith("Row 1: ") and found(says, answer) and answer.endswith(".")
    else:
        assert answer is True
    assert all((model.injections, model.patches) == ({}, {}) for model in world.models.values())
    assert not world.trap.exists(), "no code of the file has run"


def test_the_trap_of_these_tests_works(world):
    path = world.folder / "trap.pt"
    pickle_that_is_code(world, path)
    torch.load(path, weights_only=False)
    assert world.trap.exists()


def test_a_pickle_of_plain_tensors_is_the_lora_that_it_holds(world):
    torch.save(world.tensors, world.folder / "plain.pt")
    layers = [
        world.delta_of(Row(lora=name, route="both")) for name in ("plain.pt", world.good.name)
    ]
    assert torch.equal(*layers) and layers[0].abs().max() > 0
    assert world.check(lora="plain.pt") is True


def test_a_pickle_is_read_once_for_all_checks_of_the_queue(world, monkeypatch):
    torch.save(world.tensors, world.folder / "plain.pt")
    torch.save({"layer.weight": torch.ones(2)}, world.folder / "model.pt")
    read, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda path, **how: read.append(path) or load(path, **how))
    for _ in range(3):
        assert world.check(lora="plain.pt") is True
        assert "holds no LoRA" in world.check(lora="model.pt")
    assert sorted(path.name for path in read) == ["model.pt", "plain.pt"]
    torch.save(world.tensors, world.folder / "model.pt")
    assert world.check(lora="model.pt") is True, "a file that changed is read again"


def test_a_file_that_holds_the_low_expert_alone_goes_there_by_itself(world):
    inside = {key.removeprefix("diffusion_model."): value for key, value in world.tensors.items()}
    path = world.folder / "second.safetensors"
    save_file({f"transformer_2.{key}": value for key, value in inside.items()}, path)
    patched, report = world.apply(Row(lora=path.name))
    (file,) = report.files
    assert (file.expert, file.matched, file.total) == ("low_noise", 20, 20)
    assert file.reason == "its keys are for low_noise"
    same, _ = world.apply(Row(lora=world.good.name, route="low"))
    assert torch.equal(world.output(patched["low_noise"]), world.output(same["low_noise"]))
    with pytest.raises(UserError, match="it was trained for the low_noise expert") as caught:
        world.apply(Row(lora=path.name, route="high"))
    assert "route to the expert that it was trained for" in caught.value.to_do
    assert "0 of 0" not in str(caught.value) and "for this Wan model" not in str(caught.value)


def test_one_file_in_many_rows_is_measured_once_for_each_expert(world, monkeypatch):
    from tandem_wan.nodes.host import stack as host_stack

    calls = []
    for name in ("content_digest", "update_size"):
        measure = getattr(host_stack, name)

        def counted(*given, name=name, measure=measure):
            calls.append(name)
            return measure(*given)

        monkeypatch.setattr(host_stack, name, counted)
    row = Row(lora=world.good.name, route="both", high=0.1, low=0.1)
    _, report = world.apply(row, row, row)
    assert sorted(calls) == ["content_digest", "update_size", "update_size"]
    assert len({file.size for file in report.files if file.expert == "low_noise"}) == 1


def test_one_layer_of_nan_is_left_out_with_a_warning_or_refused(world, caplog):
    key = f"{Q}.lora_B.weight"
    broken = world.tensors | {key: world.tensors[key].clone()}
    broken[key][3, 1] = torch.inf
    save_file(broken, world.folder / "one_nan.safetensors")
    row = Row(lora="one_nan.safetensors", route="both")
    with pytest.raises(UserError, match=r"3 keys left over: not a number .*lora_B"):
        world.apply(row)
    patched, report = world.apply(row, unmatched="warn")
    assert [(file.matched, file.total) for file in report.files] == [(19, 20)] * 2
    assert "holds NaN or infinity" in caplog.text
    assert torch.isfinite(world.output(patched["high_noise"])).all()


def test_one_file_in_two_rows_counts_twice_and_the_report_says_so(world):
    row = Row(lora=world.good.name, route="both", high=0.4, low=0.4)
    _, report = world.apply(row, row)
    assert set(report.signs["loaded twice"]) == {world.good.name}
    assert "its strengths add up" in report.text()
    single = Row(lora=world.good.name, route="both", high=0.8, low=0.8)
    torch.testing.assert_close(world.delta_of(row, row), world.delta_of(single))
    copy = world.folder / "copy.safetensors"
    copy.write_bytes(world.good.read_bytes())
    _, report = world.apply(row, Row(lora=copy.name, route="both"))
    assert report.signs["loaded twice"] == (f"{world.good.name} = {copy.name}",)


def test_five_hundred_rows_are_checked_and_applied_in_seconds(world):
    names = [f"many_{number}.safetensors" for number in range(10)]
    for name in names:
        (world.folder / name).write_bytes(world.good.read_bytes())
    rows = [
        {"lora": names[number % 10], "route": "both", "high": 0.001, "low": 0.001}
        for number in range(500)
    ]
    start = time.perf_counter()
    stack = world.stack(rows)
    assert len(stack.rows) == 500
    read = time.perf_counter()
    patched, report = world.apply(*stack.rows)
    assert report.matched == report.total == 500 * 20 * 2
    applied = time.perf_counter()
    assert world.output(patched["high_noise"]).isfinite().all()
    sampled = time.perf_counter()
    assert read - start < 5 and applied - read < 30 and sampled - applied < 5


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors",
        "sub/../../outside.safetensors",
        "..\\outside.safetensors",
        "ABSOLUTE",
    ],
)
def test_a_file_outside_of_the_loras_folders_is_not_reached(world, name):
    outside = world.folder.parent / "outside.safetensors"
    outside.write_bytes(world.good.read_bytes())
    name = str(outside) if name == "ABSOLUTE" else name
    with pytest.raises(UserError, match="is not in a loras folder"):
        world.apply(Row(lora=name, route="both"))
    with pytest.raises(UserError, match="is not in a loras folder"):
        world.apply(Row(lora=world.good.name, lora_low=name))
    assert "is not in a loras folder" in str(world.check(lora=name))


@pytest.mark.parametrize("names", ["wan", "diffusers"])
def test_a_lora_of_wan_2_1_i2v_on_2_2_is_20_of_24_and_harmless(world, names):
    words = {
        "wan": ("diffusion_model.blocks.{}.cross_attn.k_img", "diffusion_model.blocks.{}.cross_attn.v_img"),
        "diffusers": ("transformer.blocks.{}.attn2.add_k_proj", "transformer.blocks.{}.attn2.add_v_proj"),
    }[names]  # fmt: skip
    state = dict(world.tensors)
    for stem in (word.format(block) for word in words for block in range(2)):
        state[f"{stem}.lora_A.weight"] = torch.ones(4, 128)
        state[f"{stem}.lora_B.weight"] = torch.ones(128, 4)
    save_file(state, world.folder / "of_21.safetensors")
    patched, report = world.apply(Row(lora="of_21.safetensors", route="both"))
    for file in report.files:
        assert (file.matched, file.total, file.fatal, file.verdict) == (20, 24, (), "fits")
        assert "20 of 24 modules matched (the other 4 are harmless)" in file.text()
        assert "8 keys have no place here: harmless" in file.text()
    same, _ = world.apply(Row(lora=world.good.name, route="both"))
    assert torch.equal(world.output(patched["low_noise"]), world.output(same["low_noise"]))


def test_a_lora_of_5b_on_a_14b_model_names_both(world):
    path = of_width(world.folder / "of_5b.safetensors", 3072, 14336)
    shapes = transformer_layout(TransformerSize(width=5120, layers=2, ffn_width=13824))
    report = header_report(
        lora_header(path), shapes, Placement(path.name, "high_noise", "route is both")
    )
    for policy in ("error", "warn", "ignore"):
        with pytest.raises(UserError) as caught:
            judge([report], policy)
        said = str(caught.value)
        assert "5B (width 3072)" in said and "14B" in said and "width 5120" in said, said
    with pytest.raises(UserError, match=r"5B \(width 3072\).*width 128"):
        world.apply(Row(lora=path.name, route="both"), unmatched="ignore")


def of_width(path, width, ffn_width):
    """A LoRA of rank 1 on two blocks of a network of this width."""
    shapes = transformer_layout(TransformerSize(width=width, layers=2, ffn_width=ffn_width))
    state = {}
    for name, (outputs, *inputs) in shapes.items():
        if name.startswith("blocks.") and name.endswith(".weight") and inputs:
            stem = f"diffusion_model.{name.removesuffix('.weight')}"
            state[f"{stem}.lora_A.weight"] = torch.ones(1, *inputs)
            state[f"{stem}.lora_B.weight"] = torch.ones(outputs, 1)
    save_file(state, path)
    return path


def found(pattern, text):
    return re.search(pattern, text, re.DOTALL)


class World:
    """Two experts of two blocks, and a good LoRA on their 20 linear layers."""

    def __init__(self, comfy, family, folder):
        self.folder, self.checkpoint, self.trap = folder, family.high_noise, folder / "sprung"
        with torch.inference_mode():
            self.models: dict[Role, object] = {
                role: comfy.sd.load_diffusion_model(str(getattr(family, role)))
                for role in ("high_noise", "low_noise")
            }
        weights = {
            name.removesuffix(".weight"): weight
            for name, weight in load_file(self.checkpoint).items()
            if name.startswith("blocks.") and weight.ndim == 2
        }
        expert = Expert("high_noise", random_lora(1, weights), weights)
        self.good = built("diffusion_model.")(folder / "good", [expert])
        self.tensors = load_file(self.good)

    def apply(self, *rows, unmatched="error"):
        from tandem_wan.nodes.host.stack import apply_stack

        return apply_stack(LoraStack(rows), self.models, unmatched)

    def check(self, **row):
        """What the queue says of a stack of one row."""
        from tandem_wan.nodes.stack import TandemLoraStack

        return TandemLoraStack.validate_inputs(rows=json.dumps([row]))

    def stack(self, rows):
        """What the stack node makes of these rows, after the queue's check."""
        from tandem_wan.nodes.stack import TandemLoraStack

        class Node(TandemLoraStack):
            hidden = SimpleNamespace(unique_id=None)

        assert Node.validate_inputs(rows=json.dumps(rows)) is True
        return Node.execute(rows=json.dumps(rows)).args[0]

    def delta_of(self, *rows):
        """How the network's output changes."""
        patched, _ = self.apply(*rows)
        return self.output(patched["high_noise"]) - self.output(self.models["high_noise"])

    @staticmethod
    def output(model):
        from tandem_wan.dev import update_rig

        return update_rig.output(model)


@pytest.fixture(scope="module")
def two_blocks(tmp_path_factory):
    from tandem_wan.wan.miniature.random_family import write_family

    folder = tmp_path_factory.mktemp("two_blocks")
    return write_family(folder, transformer=TransformerSize(layers=2))


@pytest.fixture
def world(comfy, two_blocks, tmp_path, monkeypatch):
    import folder_paths

    folder = tmp_path / "loras"
    folder.mkdir()
    entry = ([str(folder)], folder_paths.folder_names_and_paths["loras"][1])
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", entry)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setenv("TANDEM_TRAP", str(folder / "sprung"))
    return World(comfy, two_blocks, folder)
