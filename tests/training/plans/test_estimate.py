"""Time, memory and disk against counted networks and published figures, not against our own arithmetic."""

from dataclasses import replace
from math import prod
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from tandem_wan.training.checkpoints import KEPT_STATES, STATE_FILE, CheckpointStore
from tandem_wan.training.data.dataset import Clip, Dataset
from tandem_wan.training.layer_settings import layer_settings
from tandem_wan.training.plans.budget import make_plan
from tandem_wan.training.plans.estimate import disk_bytes, run_flops, sample_flops
from tandem_wan.training.plans.estimate_memory import (
    activation_bytes,
    device_bytes,
    lora_params,
    offloaded_bytes,
)
from tandem_wan.training.plans.estimate_report import (
    GIB,
    Load,
    Machine,
    duration,
    estimate_report,
    fit_report,
    fits,
    way_to_fit,
)
from tandem_wan.training.plans.network_sizes import WAN_14B, WAN_14B_FP8, wan_size
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.presets import PRESETS
from tandem_wan.training.plans.settings import LoraSettings, PruneSettings
from tandem_wan.wan.lora.adapters import new_adapters
from tandem_wan.wan.lora.files import adapter_tensors
from tandem_wan.wan.miniature.layouts import TransformerSize, transformer_layout
from tandem_wan.wan.miniature.transformer import WanTransformer
from tandem_wan.wan.shapes import ClipSize
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

SMALL = TransformerSize(width=64, heads=2, layers=3, ffn_width=160, text_width=48)
A14B = TransformerSize(width=5120, heads=40, layers=40, ffn_width=13824, text_width=4096)
TWO = TrainingPlan(family="wan 2.2 A14B")


def dataset(num_clips: int, size: ClipSize, **more) -> Dataset:
    clips = tuple(
        Clip(path=Path(f"{n}"), caption="a b c", frames=size.frames, digest=str(n), **more)
        for n in range(num_clips)
    )
    return Dataset(folder=Path("clips"), clips=clips, size=size, fps=16)


@pytest.mark.parametrize(
    "size", [SMALL, replace(SMALL, input_channels=16), replace(SMALL, width=128, layers=1)]
)
def test_parameters_are_those_of_the_real_modules(size):
    network = WanTransformer(size)
    ours = wan_size("small", size)
    assert ours.num_params == sum(weight.numel() for weight in network.parameters())
    layers = {n: m for n, m in network.named_modules() if isinstance(m, torch.nn.Linear)}
    assert {n: (s.inputs, s.outputs) for n, s in ours.layers.items()} == {
        n: (m.in_features, m.out_features) for n, m in layers.items()
    }


@pytest.mark.parametrize(("frames", "height", "width", "text"), [(1, 4, 4, 7), (3, 6, 4, 30)])
def test_operations_of_a_forward_pass_are_those_that_torch_counts(frames, height, width, text):
    network = WanTransformer(SMALL)
    x = torch.randn(1, 36, frames, height, width)
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        network(x, torch.tensor([0.5]), torch.randn(1, text, SMALL.text_width))
    ours = replace(wan_size("small", SMALL), text_tokens=text)
    bare = replace(TWO, lora=LoraSettings(targets=()))
    flops = sample_flops(ours, bare, frames * height * width // 4)
    assert flops.forward == counted.get_total_flops()
    assert flops.lora == 0


# frames, height, width, tokens, forward and training PFLOP of 14B with recomputed blocks: from the survey of trainers.
PUBLISHED = [
    (1, 512, 512, 1_024, 0.028, 0.086),
    (17, 480, 832, 7_800, 0.242, 0.805),
    (49, 480, 832, 20_280, 0.832, 3.02),
    (81, 480, 640, 25_200, 1.135, 4.20),
    (81, 480, 832, 32_760, 1.678, 6.37),
    (81, 720, 1280, 75_600, 6.52, 26.6),
]


@pytest.mark.parametrize(("frames", "height", "width", "tokens", "forward", "training"), PUBLISHED)
def test_14b_agrees_with_the_published_table(frames, height, width, tokens, forward, training):
    assert WAN_14B.tokens(ClipSize(width, height, frames)) == tokens
    bare = replace(TWO, lora=LoraSettings(targets=()))
    flops = sample_flops(WAN_14B, bare, tokens)
    assert flops.forward / 1e15 == pytest.approx(forward, rel=0.01)
    assert flops.training(recompute=True) / 1e15 == pytest.approx(training, rel=0.03)


def test_14b_has_the_size_of_its_public_files():
    assert WAN_14B.weight_bytes == pytest.approx(28.6e9, rel=0.002)
    assert WAN_14B_FP8.weight_bytes == WAN_14B.weight_bytes / 2


def test_a_latent_of_the_5b_model_has_cells_of_16_pixels():
    size = replace(SMALL, input_channels=48, output_channels=48)
    assert wan_size("5B", size).tokens(ClipSize(1280, 704, 121)) == 31 * 22 * 40


def test_block_inputs_of_81_frames_at_480p_take_13_4_gb():
    """The published figure for 14B in bf16: what recomputed blocks keep, without the one at work."""
    bare = replace(TWO, lora=LoraSettings(targets=()))
    kept = activation_bytes(WAN_14B, bare, 32_760)
    one_block_less = replace(
        WAN_14B, layers={n: s for n, s in WAN_14B.layers.items() if not n.startswith("blocks.39.")}
    )
    less = kept - activation_bytes(one_block_less, bare, 32_760)
    assert 40 * less == pytest.approx(13.4e9, rel=0.01)
    assert offloaded_bytes(WAN_14B, replace(bare, offload_activations=True), 32_760) == 40 * less


def test_swapped_blocks_leave_the_device_and_two_buffers_stay():
    """30 of 14B's 40 blocks in fp8, counted from the layout of its files."""
    here, swapped = (
        device_bytes(WAN_14B_FP8, replace(TWO, swap_blocks=count), 7_800).weights
        for count in (0, 30)
    )
    block = sum(
        prod(shape)
        for name, shape in transformer_layout(A14B).items()
        if name.startswith("blocks.0.")
    )
    assert here - swapped == pytest.approx(28 * block, rel=0.01)


def test_swap_and_activations_in_main_memory_are_in_its_account():
    size = ClipSize(832, 480, 49)
    changes = {"swap_blocks": 30, "offload_activations": True}
    text = report("video effect", size, replace(CARD, device_free=24 * GIB), **changes)
    assert "for the expert that waits and swapped blocks and activations, free" in text
    alone = report("video effect", size, CARD, family="single model", **changes)
    assert "for swapped blocks and activations, free" in alone
    little = replace(CARD, ram_free=8 * GIB)
    text = report("video effect", size, little, family="single model", **changes)
    assert text.startswith("does not fit on a card (too little main memory)")


@pytest.mark.parametrize("rank", [4, 32])
def test_a_checkpoint_has_the_bytes_of_a_real_lora_file(rank):
    plan = replace(TWO, lora=LoraSettings(rank=rank, alpha=1.0), steps=100, save_every=100)
    network = wan_size("small", SMALL)
    layers = {
        name: network.layers[name] for name in layer_settings(plan, "high_noise", network.layers)
    }
    adapters = new_adapters(layers, rank=rank, alpha=1.0, seed=0)
    assert lora_params(network, plan) == sum(p.numel() for p in adapters.parameters())
    data = dataset(1, ClipSize(64, 64, 5))
    optimizer = torch.optim.AdamW(adapters.parameters())
    sum(p.sum() for p in adapters.parameters()).backward()
    optimizer.step()
    states = [v for s in optimizer.state.values() for v in s.values() if v.ndim]
    real = len(save(adapter_tensors(adapters))) + sum(t.nbytes for t in states)
    real += sum(p.numel() * 4 for p in adapters.parameters())
    disk = disk_bytes(network, plan, data)
    assert disk.num_checkpoints == 1
    assert disk.checkpoints == pytest.approx(2 * real, rel=0.1 if rank == 4 else 0.02)


@pytest.mark.parametrize(("steps", "every", "number"), [(100, 100, 1), (101, 100, 2), (30, 40, 1)])
def test_the_last_step_is_saved_too(steps, every, number):
    plan = replace(TWO, steps=steps, save_every=every)
    data = dataset(1, ClipSize(64, 64, 5))
    assert disk_bytes(wan_size("small", SMALL), plan, data).num_checkpoints == number


@pytest.mark.parametrize(
    ("prune", "most"),
    [(PruneSettings(), 25), (PruneSettings(last=1), 5), (PruneSettings(last=4, every=500), 11)],
)
def test_pruned_checkpoints_take_no_room(tmp_path, prune, most):
    """Against folders that are saved and pruned, while the best of each expert wanders."""
    store, pick, seen = CheckpointStore(tmp_path, "run"), Random(1), []
    for step in range(100, 2600, 100):
        (tmp_path / f"step_{step:06d}").mkdir()
        for number, kept in enumerate(reversed(store.steps())):
            state = tmp_path / f"step_{kept:06d}" / STATE_FILE
            state.touch() if number < KEPT_STATES else state.unlink(missing_ok=True)
        seen.append(len(store.steps()))
        store.prune(prune, pick.choices(store.steps(), k=2))
    plan = replace(TWO, steps=2500, save_every=100, prune=prune)
    data = dataset(1, ClipSize(64, 64, 5))
    assert disk_bytes(wan_size("small", SMALL), plan, data).num_checkpoints == most
    assert most - 2 <= max(seen) <= most


def test_pinned_memory_is_taken_in_powers_of_two():
    """335 MB of 14B's block inputs at 81 frames of 832 x 480 take 512 MiB each: PyTorch's own allocator does so."""
    network, plan = WAN_14B, replace(TWO, offload_activations=True)
    tokens = network.tokens(ClipSize(832, 480, 81))
    assert offloaded_bytes(network, plan, tokens) == 40 * tokens * 5120 * 2
    assert offloaded_bytes(network, plan, tokens, pinned=True) == 40 * 2**29


def test_a_run_is_counted_sample_by_sample():
    """Two sizes and repeats, against adding up every sample that is shown."""
    network = wan_size("small", SMALL)
    small, large = ClipSize(64, 64, 5), ClipSize(128, 64, 9)
    clips = (
        Clip(path=Path("a"), caption="", frames=5, digest="a", size=(64, 64), repeats=3.0),
        Clip(path=Path("b"), caption="", frames=9, digest="b", size=(128, 64)),
    )
    data = Dataset(folder=Path("x"), clips=clips, size=large, fps=16)
    plan = replace(TWO, steps=10, batch=2, accumulate=1)
    slow = 0.0
    for sample in range(20):
        size = large if sample % 4 == 0 else small
        slow += sample_flops(network, plan, network.tokens(size)).training(recompute=True)
    assert run_flops(network, plan, data) == pytest.approx(slow)


@settings(max_examples=25)
@given(st.integers(256, 40_000), st.integers(1, 4), st.sampled_from([8, 32, 64]), st.booleans())
def test_more_of_anything_never_needs_less(tokens, batch, rank, recompute):
    plan = replace(TWO, batch=batch, lora=LoraSettings(rank=rank), checkpoint_blocks=recompute)
    here = device_bytes(WAN_14B, plan, tokens).total
    assert device_bytes(WAN_14B, plan, tokens + 256).total > here
    assert device_bytes(WAN_14B, replace(plan, batch=batch + 1), tokens).total > here
    more = replace(plan, lora=LoraSettings(rank=2 * rank))
    assert device_bytes(WAN_14B, more, tokens).total > here
    kept = activation_bytes(WAN_14B, replace(plan, checkpoint_blocks=False), tokens)
    assert kept > activation_bytes(WAN_14B, replace(plan, checkpoint_blocks=True), tokens)
    assert device_bytes(WAN_14B_FP8, plan, tokens).total < here


CARD = Machine(
    device="a card",
    has_own_memory=True,
    device_free=139 * GIB,
    ram_free=128 * GIB,
    disk_free=500 * GIB,
    flops_per_s=700e12,
)


def report(preset: str, size: ClipSize, machine: Machine, **changes) -> str:
    data = dataset(16, size)
    plan = replace(make_plan(data, preset, "wan 2.2 A14B"), **changes)
    fit = fit_report(plan, data, WAN_14B, machine)
    return "\n".join([*fit, *estimate_report(plan, data, WAN_14B, machine)])


def test_a_large_card_fits_both_experts_and_a_middle_one_is_told_what_to_do():
    large = report("video effect", ClipSize(832, 480, 81), CARD)
    assert large.startswith("fits on a card, about ")
    assert large.count(": fits") == 2 and "both experts fit on the device" in large
    small = report("video effect", ClipSize(1280, 720, 81), replace(CARD, device_free=31 * GIB))
    assert small.startswith("does not fit on a card (too little memory), about ")
    assert "It would fit with a model file in fp8, offload_activations true" in small
    tiny = report("video effect", ClipSize(1280, 720, 81), replace(CARD, device_free=20 * GIB))
    told = "fp8, offload_activations true, swap_blocks 30, clips of 832 x 464 (480p)"
    assert told in tiny, tiny


def test_the_published_run_of_an_h200_is_within_a_third():
    """9.8 s an iteration, of which 2.05 + 5.9 s are the network's, for about 25,200 tokens at rank 64."""
    plan = replace(TWO, lora=LoraSettings(rank=64, alpha=64.0))
    flops = sample_flops(WAN_14B, plan, 25_200).training(recompute=True)
    # Large products reach about three quarters of the nominal 989 TFLOP/s.
    assert flops / (0.7 * 0.75 * 989e12) == pytest.approx(2.05 + 5.9, rel=0.33)


@settings(max_examples=30)
@given(
    st.integers(4, 140),
    st.sampled_from([(1280, 720, 81), (832, 480, 81), (832, 480, 49), (512, 512, 1)]),
    st.sampled_from(sorted(PRESETS)),
    st.booleans(),
    st.integers(1, 4),
)
def test_what_is_advised_makes_it_fit_or_says_that_it_does_not(gib, size, preset, recompute, batch):
    plan = make_plan(dataset(16, ClipSize(*size)), preset, "wan 2.2 A14B")
    plan = replace(plan, checkpoint_blocks=recompute, batch=batch)
    load, machine = Load(plan, WAN_14B, ClipSize(*size)), replace(CARD, device_free=gib * GIB)
    changes, enough = way_to_fit(load, machine)
    assert (changes == []) == fits(load, machine) or not enough
    smallest = Load(
        replace(
            plan,
            checkpoint_blocks=True,
            batch=1,
            lora=replace(plan.lora, rank=16),
            offload_activations=True,
            swap_blocks=30,
        ),
        WAN_14B_FP8,
        ClipSize(832, 480, min(17, size[2])),
    )
    if size == (832, 480, 81):
        assert enough == fits(smallest, machine)


def test_a_processor_counts_both_experts_as_main_memory():
    size = ClipSize(512, 512, 1)
    weights = 2 * WAN_14B.weight_bytes
    machine = replace(CARD, has_own_memory=False, device_free=weights)
    assert not fits(Load(TWO, WAN_14B, size), machine)
    assert fits(Load(replace(TWO, train="low"), WAN_14B, size), machine)


def test_a_full_disk_is_seen_before_the_run():
    text = report("motion 4x", ClipSize(832, 480, 81), replace(CARD, disk_free=1 * GIB))
    assert "does not fit; raise save_every, prune checkpoints, or make room" in text
    assert text.startswith("does not fit on a card (too little disk space)")


def test_too_little_main_memory_for_the_expert_that_waits_is_in_the_verdict():
    little = replace(CARD, device_free=60 * GIB, ram_free=8 * GIB)
    text = report("video effect", ClipSize(832, 480, 81), little)
    assert text.startswith("does not fit on a card (too little main memory)")
    assert "does not fit; use files in fp8" in text


def test_a_pace_that_was_not_measured_is_not_guessed():
    text = report("character", ClipSize(832, 480, 17), replace(CARD, flops_per_s=None))
    assert "time: not known" in text and text.startswith("fits on a card\n")


def test_a_run_of_years_is_called_far_too_long_and_a_day_is_not():
    slow = replace(CARD, device="this processor", has_own_memory=False, flops_per_s=0.05e12)
    text = report("video effect", ClipSize(832, 480, 81), slow)
    assert "this processor, far too long there (" in text.splitlines()[0]
    assert "Time is far too long here: train on a graphics card" in text
    fast = report("video effect", ClipSize(832, 480, 81), CARD)
    assert "far too long" not in fast
    assert "PFLOP" not in text + fast, "no figure for specialists"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (50, "50 s"),
        (100, "2 minutes"),
        (5000, "83 minutes"),
        (7200, "2.0 hours"),
        (86_400 * 3, "3.0 days"),
        (4 * 31_557_600, "4.0 years"),
        (46.4 * 31_557_600, "46 years"),
    ],
)
def test_a_duration_is_as_exact_as_an_estimate(seconds, words):
    assert duration(seconds) == words
