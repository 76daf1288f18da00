"""Adapters on MODELs: routes, strengths, chains, and life beside core's own LoRAs."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from safetensors.torch import save_file
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.adapters import AdapterSet, LoraAdapter
from tandem_wan.wan.lora.stack import Blend, LoraStack, Row

pytestmark = pytest.mark.comfy
LAYERS = ("blocks.0.self_attn.q", "blocks.1.ffn.0", "blocks.3.cross_attn.o")


@pytest.mark.parametrize("route", ["both", "high", "low"])
@pytest.mark.parametrize(
    ("high", "low", "on"),
    [(1.0, 1.0, True), (0.5, -0.7, True), (0.0, 1.0, True), (1.0, 1.0, False)],
)
def test_a_row_changes_each_layer_by_strength_alpha_over_rank_times_up_down(
    pair, loras, route, high, low, on
):
    from tandem_wan.nodes.host.stack import apply_stack

    file, tensors = loras("one", rank=4, alpha=2.0)
    stack = LoraStack((Row(lora=file, route=route, high=high, low=low, on=on),))
    patched, _ = apply_stack(stack, pair, "error")
    strengths = {
        "high_noise": high if on and route != "low" else 0.0,
        "low_noise": low if on and route != "high" else 0.0,
    }
    for role, model in pair.items():
        for layer in LAYERS:
            expected = strengths[role] * 2.0 / 4 * _product(tensors, layer)
            torch.testing.assert_close(
                _weight(patched[role], layer) - _weight(model, layer), expected, rtol=0, atol=1e-6
            )
        if strengths[role] == 0:
            assert patched[role] is model


def test_two_chained_stacks_equal_one_and_the_input_is_untouched(pair, loras):
    from tandem_wan.nodes.host.stack import apply_stack

    rows = [Row(lora=loras(n, rank=r)[0], route="both") for n, r in (("a", 4), ("b", 2))]
    once, _ = apply_stack(LoraStack(tuple(rows)), pair, "error")
    first, _ = apply_stack(LoraStack((rows[0],)), pair, "error")
    twice, _ = apply_stack(LoraStack((rows[1],)), first, "error")
    for role, model in pair.items():
        plain = _out(model)
        assert torch.equal(_out(once[role]), _out(twice[role]))
        assert not torch.equal(_out(first[role]), _out(once[role]))
        assert torch.equal(_out(model), plain)
        assert model.injections == {} and model.patches == {}


def test_an_injection_equals_cores_merged_lora(pair, loras):
    import comfy.sd
    from tandem_wan.nodes.host.stack import apply_stack

    file, tensors = loras("merged", rank=8, alpha=4.0)
    model = pair["high_noise"]
    ours, _ = apply_stack(LoraStack((Row(lora=file, route="high"),)), pair, "error")
    with torch.inference_mode():
        theirs, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0)
    difference = (_out(ours["high_noise"]) - _out(theirs)).abs().max()
    effect = (_out(theirs) - _out(model)).abs().max()
    assert difference < 1e-4 * effect, (difference, effect)


@pytest.mark.parametrize("order", list(itertools.permutations(("ours", "core"))))
@pytest.mark.parametrize("loader", ["load_bypass_lora_for_models", "load_lora_for_models"])
def test_ours_and_cores_loras_live_on_one_model_in_either_order(pair, loras, order, loader):
    import comfy.sd
    from tandem_wan.nodes.host.stack import apply_stack

    file, _ = loras("mine", rank=4)
    _, other = loras("core", rank=4)
    model = pair["high_noise"]
    plain = _out(model)

    def with_ours(m):
        return apply_stack(LoraStack((Row(lora=file, route="high"),)), {"high_noise": m}, "error")[
            0
        ]["high_noise"]

    def with_core(m):
        with torch.inference_mode():
            return getattr(comfy.sd, loader)(m, None, other, 1.0, 0)[0]

    both = model
    for step in order:
        both = with_ours(both) if step == "ours" else with_core(both)
    merged = with_ours(comfy.sd.load_lora_for_models(model, None, other, 1.0, 0)[0])
    torch.testing.assert_close(_out(both), _out(merged), rtol=1e-4, atol=1e-5)
    assert torch.equal(_out(model), plain)
    torch.testing.assert_close(_out(both), _out(merged), rtol=1e-4, atol=1e-5)


def test_a_lora_on_a_quantised_model_adds_what_it_adds_in_float(comfy, family, loras, tmp_path):
    """On fp8 weights the base is coarser; the update itself must not be."""
    from tandem_wan.nodes.host.stack import apply_stack

    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(
            str(family.high_noise), model_options={"dtype": torch.float8_e4m3fn}
        )
    assert model.model.diffusion_model.blocks[0].self_attn.q.weight.dtype == torch.float8_e4m3fn
    file, tensors = loras("fp8", rank=4)
    patched, report = apply_stack(
        LoraStack((Row(lora=file, route="high"),)), {"high_noise": model}, "error"
    )
    assert report.matched == len(LAYERS)
    for layer in LAYERS:
        delta = _weight(patched["high_noise"], layer) - _weight(model, layer)
        expected = _product(tensors, layer)
        error = (delta - expected).norm() / expected.norm()
        assert error < 0.02, (layer, error)


def test_a_file_that_matches_nothing_is_an_error_whatever_the_policy(pair, loras_folder):
    from tandem_wan.nodes.host.stack import apply_stack

    save_file(
        {"unet.x.lora_A.weight": torch.ones(2, 3), "unet.x.lora_B.weight": torch.ones(3, 2)},
        loras_folder / "alien.safetensors",
    )
    for policy in ("error", "warn", "ignore"):
        with pytest.raises(UserError, match=r"alien.safetensors matches nothing"):
            apply_stack(LoraStack((Row(lora="alien.safetensors", route="both"),)), pair, policy)


def test_half_of_a_pair_that_matches_nothing_is_an_error_too(pair, loras, loras_folder):
    from tandem_wan.nodes.host.stack import apply_stack

    file, _ = loras("good", rank=2)
    alien = {"x.lora_A.weight": torch.ones(2, 3), "x.lora_B.weight": torch.ones(3, 2)}
    save_file(alien, loras_folder / "alien.safetensors")
    for row in (
        Row(lora=file, lora_low="alien.safetensors"),
        Row(lora="alien.safetensors", lora_low=file),
    ):
        with pytest.raises(UserError, match=r"Row 1: alien.safetensors matches nothing"):
            apply_stack(LoraStack((row,)), pair, "ignore")


def test_a_pair_the_wrong_way_round_is_seen_by_its_metadata(pair, loras, loras_folder):
    from tandem_wan.nodes.host.stack import apply_stack

    for role in pair:
        _, tensors = loras(role, rank=2)
        metadata = {"tandem": json.dumps({"expert": role})}
        save_file(tensors, loras_folder / f"{role}.safetensors", metadata=metadata)
    high, low = (f"{role}.safetensors" for role in pair)
    right, _ = apply_stack(LoraStack((Row(lora=high, lora_low=low),)), pair, "error")
    assert set(right) == set(pair)
    swapped = LoraStack((Row(lora=low, lora_low=high),))
    with pytest.raises(UserError, match="it was trained for the low_noise expert"):
        apply_stack(swapped, pair, "error")
    _, report = apply_stack(swapped, pair, "warn")
    swapped_roles = [(file.trained_for, file.expert) for file in report.files]
    assert swapped_roles == [("low_noise", "high_noise"), ("high_noise", "low_noise")]


@pytest.mark.parametrize(("route", "expected"), [("auto", 2), ("both", 2), ("high", 1), ("low", 1)])
def test_the_route_of_a_pair_takes_both_halves_or_one(pair, loras, route, expected):
    from tandem_wan.nodes.host.stack import apply_stack

    row = Row(lora=loras("h", rank=2)[0], lora_low=loras("l", rank=2)[0], route=route)
    patched, report = apply_stack(LoraStack((row,)), pair, "error")
    assert len(report.files) == expected
    assert [r for r in pair if patched[r] is not pair[r]] == [f.expert for f in report.files]


def test_a_shape_of_another_model_is_named_before_sampling(pair, loras_folder):
    from tandem_wan.nodes.host.stack import apply_stack

    key = "diffusion_model.blocks.0.self_attn.q."
    tensors = {
        f"{key}lora_A.weight": torch.ones(4, 3072),
        f"{key}lora_B.weight": torch.ones(3072, 4),
    }
    save_file(tensors, loras_folder / "of_5b.safetensors")
    with pytest.raises(UserError, match=r"\(3072, 3072\) in the file, \(128, 128\) in the model"):
        apply_stack(LoraStack((Row(lora="of_5b.safetensors", route="both"),)), pair, "warn")


def test_part_of_a_file_without_a_place_follows_the_policy(pair, loras, loras_folder, caplog):
    from tandem_wan.nodes.host.stack import apply_stack

    _, tensors = loras("part", rank=4)
    tensors["diffusion_model.blocks.99.self_attn.q.lora_A.weight"] = torch.ones(4, 128)
    tensors["diffusion_model.blocks.99.self_attn.q.lora_B.weight"] = torch.ones(128, 4)
    save_file(tensors, loras_folder / "part.safetensors")
    stack = LoraStack((Row(lora="part.safetensors", route="high"),))
    with pytest.raises(UserError, match=r"2 keys left over: no such layer.*blocks\.99"):
        apply_stack(stack, pair, "error")
    _, report = apply_stack(stack, pair, "warn")
    assert "blocks.99" in caplog.text and (report.matched, report.total) == (3, 4)
    caplog.clear()
    apply_stack(stack, pair, "ignore")
    assert caplog.text == ""


def test_a_pair_in_one_file_goes_to_both_experts_each_its_own_part(pair, loras, loras_folder):
    from tandem_wan.nodes.host.stack import apply_stack

    parts = {}
    for role, word in (("high_noise", "transformer_1"), ("low_noise", "transformer_2")):
        _, tensors = loras(role, rank=3)
        parts[role] = tensors
        renamed = {
            k.replace("diffusion_model.", f"diffusion_model.{word}."): v for k, v in tensors.items()
        }
        parts.setdefault("file", {}).update(renamed)
    save_file(parts["file"], loras_folder / "both.safetensors")
    stack = LoraStack((Row(lora="both.safetensors", high=0.5, low=2.0),))
    patched, report = apply_stack(stack, pair, "error")
    assert [file.matched for file in report.files] == [3, 3]
    for role, strength in (("high_noise", 0.5), ("low_noise", 2.0)):
        change = _weight(patched[role], LAYERS[0]) - _weight(pair[role], LAYERS[0])
        expected = strength * _product(parts[role], LAYERS[0])
        torch.testing.assert_close(change, expected, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="holds the LoRAs of both experts"):
        apply_stack(stack, {"single": pair["low_noise"]}, "error")


def test_a_blend_counts_both_files_by_their_shares_on_each_expert(pair, loras):
    from tandem_wan.nodes.host.stack import apply_stack

    (one, first), (other, second) = loras("one", rank=4), loras("other", rank=2)
    row = Row(lora=one, route="both", high=0.8, low=-1.0, blend=Blend(lora=other, share=0.25))
    patched, report = apply_stack(LoraStack((row,)), pair, "error")
    assert [file.file for file in report.files] == [one, other] * 2
    for role, strength in (("high_noise", 0.8), ("low_noise", -1.0)):
        for layer in LAYERS:
            mixed = 0.75 * _product(first, layer) + 0.25 * _product(second, layer)
            change = _weight(patched[role], layer) - _weight(pair[role], layer)
            torch.testing.assert_close(change, strength * mixed, rtol=0, atol=1e-6)


def test_each_expert_follows_its_own_schedule(pair, loras):
    from tandem_wan.nodes.host.injection import applied_files
    from tandem_wan.nodes.host.stack import apply_stack

    file, _ = loras("scheduled", rank=2)
    rows = (
        Row(lora=file, route="both", schedule="0 -> 1", schedule_low="1 -> 0"),
        Row(lora=file, route="both", schedule="0.5"),
    )
    patched, report = apply_stack(LoraStack(rows), pair, "error")
    schedules = {role: [str(f.schedule) for f in applied_files(m)] for role, m in patched.items()}
    assert schedules == {"high_noise": ["0@0, 1@1", "0.5"], "low_noise": ["1@0, 0@1", "0.5"]}
    assert [file.schedule for file in report.files] == ["0 -> 1", "1 -> 0", "0.5", "0.5"]
    with pytest.raises(UserError, match="Set mode to inject"):
        apply_stack(LoraStack(rows), pair, "error", mode="merge")


def test_a_stack_saved_as_one_lora_does_what_the_stack_does(pair, loras, loras_folder):
    from tandem_wan.nodes.host.stack import apply_stack, combine_stack
    from tandem_wan.wan.lora.files import write_safetensors

    (one, _), (other, _) = loras("one", rank=4, alpha=2.0), loras("other", rank=2)
    rows = (
        Row(lora=one, route="both", high=0.8, low=0.4),
        Row(lora=other, route="low", low=-0.7),
    )
    stack = LoraStack(rows, ("a sparkler",))
    combined, _ = combine_stack(stack, pair, "error")
    for role, lora in combined.items():
        write_safetensors(loras_folder / f"all_{role}.safetensors", lora.tensors, lora.metadata)
    saved = Row(lora="all_high_noise.safetensors", lora_low="all_low_noise.safetensors")
    from_rows, _ = apply_stack(stack, pair, "error")
    from_file, report = apply_stack(LoraStack((saved,)), pair, "error")
    assert [file.ranks for file in report.files] == [(4,), (6,)]
    for role in pair:
        torch.testing.assert_close(
            _out(from_file[role]), _out(from_rows[role]), rtol=1e-5, atol=1e-5
        )


def test_merging_is_the_same_change_without_anything_beside_the_layers(pair, loras):
    from tandem_wan.nodes.host.stack import apply_stack

    file, tensors = loras("merged", rank=4, alpha=2.0)
    stack = LoraStack((Row(lora=file, route="high", high=-0.5),))
    patched, _ = apply_stack(stack, pair, "error", mode="merge")
    assert patched["low_noise"] is pair["low_noise"]
    assert patched["high_noise"].injections == {} and pair["high_noise"].patches == {}
    for layer in LAYERS:
        change = _weight(patched["high_noise"], layer) - _weight(pair["high_noise"], layer)
        expected = -0.5 * 2.0 / 4 * _product(tensors, layer)
        torch.testing.assert_close(change, expected, rtol=0, atol=1e-6)


def test_an_expert_that_is_not_connected_is_named(pair, loras):
    from tandem_wan.nodes.host.stack import apply_stack

    file, _ = loras("low_only", rank=2)
    high = {"high_noise": pair["high_noise"]}
    with pytest.raises(UserError, match=r"Row 1: .* goes to the low-noise expert \(route is low\)"):
        apply_stack(LoraStack((Row(lora=file, route="low"),)), high, "error")
    patched, report = apply_stack(LoraStack((Row(lora=file, route="both", high=0),)), high, "error")
    assert patched["high_noise"] is high["high_noise"]
    assert report.notes == (f"{file} -> high_noise: strength 0, not applied",)


def test_a_clone_of_a_loaded_model_can_be_injected(pair):
    """The host tells a clone that it is injected already, although nothing of its own is in place."""
    from tandem_wan.nodes.host.injection import with_adapters

    model = pair["high_noise"]
    first = with_adapters(model, [_random_set(1)])
    expected = _out(first)
    again = first.clone()
    assert torch.equal(_out(again), expected)
    more = with_adapters(again, [_random_set(2)])
    assert not torch.equal(_out(more), expected)
    assert torch.equal(_out(first), expected)


@pytest.fixture
def loras_folder(comfy, tmp_path, monkeypatch):
    import folder_paths

    entry = ([str(tmp_path)], folder_paths.folder_names_and_paths["loras"][1])
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", entry)
    return tmp_path


@pytest.fixture
def loras(loras_folder):
    """Writes a random LoRA on three layers; gives its name and tensors."""

    def write(name, *, rank, alpha=None):
        adapters = _random_set(sum(map(ord, name)), rank)
        tensors = {}
        for layer, adapter in adapters.items():
            tensors[f"diffusion_model.{layer}.lora_A.weight"] = adapter.down.detach()
            tensors[f"diffusion_model.{layer}.lora_B.weight"] = adapter.up.detach()
            if alpha is not None:
                tensors[f"diffusion_model.{layer}.alpha"] = torch.tensor(alpha)
        save_file(tensors, loras_folder / f"{name}.safetensors")
        return f"{name}.safetensors", tensors

    return write


def _random_set(seed, rank=4):
    generator = torch.Generator().manual_seed(seed)
    shapes = {LAYERS[0]: (128, 128), LAYERS[1]: (128, 256), LAYERS[2]: (128, 128)}
    adapters = AdapterSet(
        {
            layer: LoraAdapter(
                torch.randn(rank, inputs, generator=generator) / 16,
                torch.randn(outputs, rank, generator=generator) / 4,
                float(rank),
            )
            for layer, (inputs, outputs) in shapes.items()
        }
    )
    for adapter in adapters.values():
        adapter.requires_grad_(False)
    return adapters


def _product(tensors, layer):
    key = f"diffusion_model.{layer}."
    return tensors[f"{key}lora_B.weight"] @ tensors[f"{key}lora_A.weight"]


def _weight(model, layer):
    """The layer's effective weight (outputs, inputs): what it does to each unit vector, bias taken off."""
    from comfy.model_management import load_models_gpu

    with torch.inference_mode():
        load_models_gpu([model])
        module = model.model.diffusion_model.get_submodule(layer)
        return (
            module(torch.eye(module.in_features)) - module(torch.zeros(1, module.in_features))
        ).T


def _out(model):
    from comfy.model_management import load_models_gpu

    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 36, 2, 8, 8, generator=generator)
    context = torch.randn(1, 8, 64, generator=generator)
    with torch.inference_mode():
        load_models_gpu([model])
        return model.model.diffusion_model(
            x, torch.tensor([500.0]), context=context, transformer_options={}
        ).clone()
