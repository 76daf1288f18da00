"""Blocks whose weights wait in main memory: the gradients are the same bits, the buffers are few, the host's model is
what it was."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from tandem_wan.dev import training_rig as rig
from tandem_wan.dev.quantised import quantise
from tandem_wan.training.loop import train
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.families import sigma_range
from tandem_wan.wan.lora.adapters import new_adapters, pick_layers

pytestmark = pytest.mark.comfy
BLOCKS = 4


@pytest.fixture(scope="module")
def models(comfy, family, tmp_path_factory):
    """A plain and a quantised expert."""
    path = tmp_path_factory.mktemp("swap") / "fp8.safetensors"
    quantise(family.high_noise, path, "scaled_fp8")
    with torch.inference_mode():
        files = {"plain": family.high_noise, "fp8": path}
        return {n: comfy.sd.load_diffusion_model(str(f)) for n, f in files.items()}


@pytest.fixture
def rings(monkeypatch):
    """Every ring that is made, and with what; a test may change how they are made."""
    from tandem_wan.nodes.host import expert
    from tandem_wan.nodes.host.block_ring import BlockRing

    class Made(list):
        settings, kind = {}, BlockRing

    made = Made()

    def make(blocks, device):
        made.append(made.kind(blocks, device, **made.settings))
        return made[-1]

    monkeypatch.setattr(expert, "BlockRing", make)
    return made


@pytest.mark.parametrize("form", ["plain", "fp8"])
@pytest.mark.parametrize(
    ("swap", "buffers", "ahead"), [(1, 2, 1), (2, 1, 0), (3, 2, 1), (4, 1, 0), (4, 2, 1), (4, 3, 2)]
)
def test_swapped_blocks_change_no_bit_of_any_gradient(models, rings, form, swap, buffers, ahead):
    expected = _gradients(models[form])
    rings.settings = {"buffers": buffers, "ahead": ahead}
    found = _gradients(models[form], swap_blocks=swap)
    assert rings[0].fills >= swap, "the ring was not used"
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_the_buffers_are_few_are_used_again_and_count_what_they_move(models, rings):
    """Forward 0 1 2 3, back 3 2 1 0, with two buffers and one ahead: 4 blocks up, and 2 that are gone on the way back;
    the second micro-batch finds 0 and 1 and brings 2 and 3, and so on."""
    _gradients(models["plain"], swap_blocks=4, micro_batches=2)
    (ring,) = rings
    one = sum(p.nbytes for p in models["plain"].model.diffusion_model.blocks[0].parameters())
    assert ring.fills == 4 + 2 + 2 + 2
    assert ring.bytes_moved == ring.fills * one
    assert ring.buffers == [], "they are freed when the expert is left"


def test_no_more_than_the_ring_of_the_weights_is_on_the_device_while_a_block_computes(
    models, rings, monkeypatch
):
    """Every matrix product's weight lies in one of two buffers, or is of a block that is not swapped."""
    network = models["plain"].model.diffusion_model
    seen, rooms = set(), []
    real = torch.nn.functional.linear

    def linear(x, weight, bias=None):
        seen.add(weight.untyped_storage().data_ptr())
        return real(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    _gradients(models["plain"], swap_blocks=3, at_end=lambda: rooms.extend(rings[0].buffers))
    assert len(rooms) == 2
    assert all(buffer.room.untyped_storage().data_ptr() in seen for buffer in rooms)
    for index, block in enumerate(network.blocks):
        masters = {p.untyped_storage().data_ptr() for p in block.parameters() if p.ndim == 2}
        assert bool(masters & seen) is (index == 0), index


@pytest.mark.parametrize("form", ["plain", "fp8"])
def test_a_ring_that_refills_the_buffer_at_work_is_seen_to_be_wrong(models, rings, form):
    """The test of the tests above: block 3 is still in its backward pass when block 2 takes its place."""
    from tandem_wan.nodes.host.block_ring import BlockRing

    class Broken(BlockRing):
        def lend(self, index):
            return _refilled_after(self, super().lend(index), index)

    rings.kind, rings.settings = Broken, {"buffers": 1, "ahead": 0}
    expected = _gradients(models[form])
    found = _gradients(models[form], swap_blocks=4)
    assert any(not torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_without_recomputation_a_swapped_block_would_be_wrong(models, rings, monkeypatch):
    """Why the plan asks for checkpoint_blocks: what autograd saves in the forward pass is overwritten."""
    from tandem_wan.nodes.host import checkpointing

    monkeypatch.setattr(
        checkpointing,
        "checkpoint",
        lambda f, *a, use_reentrant, preserve_rng_state, **k: f(*a, **k),
    )
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        _gradients(models["fp8"], swap_blocks=4)


def test_an_attention_sees_its_own_block_in_the_forward_pass_and_when_it_is_recomputed(models):
    seen = []

    def attention(q, k, v, *, block, grid, sigma):
        del grid, sigma
        seen.append(block)
        return _attention(q, k, v)

    _gradients(models["plain"], swap_blocks=2, offload_activations=True, attention=attention)
    assert seen == [0, 1, 2, 3, 3, 2, 1, 0]


def test_a_run_over_both_experts_is_the_same_run_and_the_next_prompt_samples_the_same_bits(
    pair, encoded
):
    """Losses, trained factors, the host's own parameters and what it samples: all equal, swapped or not."""
    before = {role: _sampled(model) for role, model in pair.items()}
    own = {r: [id(p) for p in m.model.diffusion_model.parameters()] for r, m in pair.items()}
    runs = [_run(pair, encoded, {}), _run(pair, encoded, {"swap_blocks": 3})]
    assert runs[0][0] == runs[1][0]
    for ours, theirs in zip(runs[0][1], runs[1][1], strict=True):
        assert torch.equal(ours, theirs)
    for role, model in pair.items():
        network = model.model.diffusion_model
        assert [id(p) for p in network.parameters()] == own[role]
        assert all("_apply" not in vars(module) for module in network.modules())
        assert model.loaded_size() == model.model_size()
        assert torch.equal(_sampled(model), before[role])


def test_the_host_samples_with_blocks_that_were_left_in_main_memory_and_brings_them_again(models):
    """What a device with memory of its own leaves behind after training, shown where both are main memory."""
    from comfy.model_management import load_models_gpu
    from tandem_wan.nodes.host.block_swap import leave_streamed

    model = models["plain"]
    before = _sampled(model)
    blocks = {1: model.model.diffusion_model.blocks[1]}
    leave_streamed(model, blocks)
    linear = blocks[1].self_attn.q
    assert linear.comfy_cast_weights is True and model.model.model_lowvram is True
    with torch.inference_mode():
        assert torch.equal(_velocity(model), before)
        load_models_gpu([model], force_full_load=True)
    assert linear.comfy_cast_weights is False and model.model.model_lowvram is False
    assert torch.equal(_sampled(model), before)


def test_the_whole_way_of_a_device_with_memory_of_its_own(pair, encoded, monkeypatch):
    """Unloading, loading around the blocks, locking them, leaving them to the host: all of it run on this processor,
    by answering that it is none. What cannot be shown here is that the copies run beside the computation."""
    from comfy.model_patcher import ModelPatcher
    from tandem_wan.nodes.host import block_swap, expert

    before = {role: _sampled(model) for role, model in pair.items()}
    expected, pinned, unpinned = _run(pair, encoded, {}), set(), []
    monkeypatch.setattr(block_swap, "is_device_cpu", lambda _: False)
    monkeypatch.setattr(expert, "is_device_cpu", lambda _: False)
    monkeypatch.setattr(ModelPatcher, "pin_weight_to_device", lambda _, key: pinned.add(key))
    monkeypatch.setattr(ModelPatcher, "unpin_all_weights", lambda _: unpinned.append(1))
    found = _run(pair, encoded, {"swap_blocks": 3})
    assert found[0] == expected[0]
    assert all(torch.equal(a, b) for a, b in zip(found[1], expected[1], strict=True))
    own = dict(pair["low_noise"].model.named_parameters())
    assert pinned <= set(own) and len({key.split(".")[2] for key in pinned}) == 3 and unpinned
    for role, model in pair.items():
        blocks = model.model.diffusion_model.blocks
        assert model.model.model_lowvram is False and model.loaded_size() == 0
        assert torch.equal(_sampled(model), before[role])
        assert [b.ffn[0].comfy_cast_weights for b in blocks] == [False] * 4
        assert model.loaded_size() == model.model_size()


def test_the_loader_moves_everything_but_the_swapped_blocks(models):
    """As a device with memory of its own would have it, with a dtype in the place of the device."""
    from tandem_wan.nodes.host.block_swap import _anchored

    network = models["plain"].model.diffusion_model
    blocks = {i: network.blocks[i] for i in (1, 3)}
    own = {i: [id(p) for p in block.parameters()] for i, block in blocks.items()}
    with torch.inference_mode(), _anchored(blocks):
        network.to(torch.float64)
        network.blocks[1].self_attn.q.to(torch.float64)
        dtypes = [next(block.parameters()).dtype for block in network.blocks]
        network.to(torch.float32)
    assert dtypes == [torch.float64, torch.float32, torch.float64, torch.float32]
    assert own == {i: [id(p) for p in block.parameters()] for i, block in blocks.items()}


def test_an_interrupt_in_the_middle_of_a_block_leaves_its_own_weights_and_no_hook(models, rings):
    network = models["plain"].model.diffusion_model
    own = [id(p) for p in network.parameters()]

    def interrupted(q, k, v, *, block, **_):
        if block == 2:
            raise KeyboardInterrupt
        return _attention(q, k, v)

    expected = _gradients(models["plain"])
    # Kept on purpose: a kept exception keeps its frames, and PyTorch's checkpointing hangs on them.
    with pytest.raises(KeyboardInterrupt) as kept:
        _gradients(models["plain"], swap_blocks=4, attention=interrupted)
    assert [id(p) for p in network.parameters()] == own
    for ours, theirs in zip(_gradients(models["plain"]), expected, strict=True):
        assert torch.equal(ours, theirs)
    del kept


def test_nothing_keeps_the_buffers_alive_after_the_expert_is_left(models, rings):
    rooms = []
    _gradients(
        models["plain"],
        swap_blocks=4,
        at_end=lambda: rooms.extend(weakref.ref(b.room) for b in rings[0].buffers),
    )
    rings.clear()
    gc.collect()
    assert len(rooms) == 2 and all(room() is None for room in rooms)


@pytest.mark.parametrize(("count", "chosen"), [(0, []), (1, [3]), (2, [1, 3]), (3, [1, 2, 3])])
def test_swapped_blocks_are_spread_over_the_network(models, count, chosen):
    from tandem_wan.nodes.host.block_swap import swapped_blocks

    assert list(swapped_blocks(models["plain"].model.diffusion_model.blocks, count)) == chosen


def test_more_blocks_than_the_model_has_and_merged_loras_are_refused(comfy, models):
    with pytest.raises(UserError, match=r"swap_blocks is 5.*has 4 blocks.*4 at most"):
        _expert(models["plain"], swap_blocks=5)
    key = "diffusion_model.blocks.3.self_attn.q"
    lora = {
        f"{key}.lora_A.weight": torch.ones(2, 128),
        f"{key}.lora_B.weight": torch.ones(128, 2),
    }
    with torch.inference_mode():
        merged = comfy.sd.load_lora_for_models(models["plain"], None, lora, 1.0, 0)[0]
    with pytest.raises(UserError, match=r"merges into its weights.*Tandem Apply Stack"):
        _expert(merged, swap_blocks=1)
    _expert(merged)


def test_weights_of_another_pack_s_kind_are_refused_by_name(models, monkeypatch):
    """As GGUF loaders make them: tensors of a class of their own, without PyTorch's protocol to take them apart."""

    class Packed(torch.Tensor):
        pass

    layer = models["plain"].model.diffusion_model.blocks[3].ffn[0]
    monkeypatch.setitem(layer._parameters, "weight", layer.weight.detach().as_subclass(Packed))
    with pytest.raises(UserError, match=r"of the kind Packed.*swap_blocks to 0"):
        _expert(models["plain"], swap_blocks=1)
    _expert(models["plain"])


def test_what_the_plan_wants_reaches_the_experts_and_is_checked_before_anything_is_loaded(
    pair, vae, clip, clips, encoded
):
    from tandem_wan.nodes.host.run import _experts
    from tandem_wan.training.samples import as_samples

    plan = rig.plan(swap_blocks=2, offload_activations=True)
    setup = rig.setup(pair, vae, clip, clips, plan=plan)
    for expert in _experts(setup, as_samples(encoded)).values():
        assert (list(expert._swapped), expert._offload) == ([1, 3], True)
    with pytest.raises(UserError, match="has 4 blocks"):
        rig.setup(pair, vae, clip, clips, plan=rig.plan(swap_blocks=5))


def _refilled_after(ring, lent, index):
    """As if the next block were brought into the buffer as soon as this one has been computed."""
    from contextlib import contextmanager

    @contextmanager
    def lend():
        try:
            with lent:
                yield
        finally:  # what is computed again ends early, with an exception
            ring._fill(max(0, index - 1), keep=())

    return lend()


def _expert(model, **memory):
    from tandem_wan.nodes.host.expert import HostExpert

    return HostExpert(model, "single", sigma_range("single", 0.9), **memory)


def _gradients(model, *, micro_batches=1, attention=None, at_end=lambda: None, **memory):
    expert = _expert(model, **memory)
    with rig.training():
        layers = expert.layers()
        shapes = {name: layers[name] for name in pick_layers(layers)}
        adapters = new_adapters(shapes, rank=2, alpha=2.0, seed=1)
        for number, adapter in enumerate(adapters.values()):
            torch.nn.init.normal_(
                adapter.up, std=0.05, generator=torch.Generator().manual_seed(number)
            )
        expert.attach(adapters)
        try:
            with expert.in_use():
                for _ in range(micro_batches):
                    loss = expert.velocity(*_inputs(), attention=attention).square().mean()
                    found = torch.autograd.grad(loss, adapters.parameters())
                at_end()
        finally:
            expert.detach()
    return found


def _attention(q, k, v):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _inputs():
    from tandem_wan.wan.conditions import ImageCondition

    generator = torch.Generator().manual_seed(3)
    x, image = (torch.randn(1, 16, 3, 4, 4, generator=generator) for _ in range(2))
    context = torch.randn(1, 7, 64, generator=generator)
    condition = ImageCondition(mask=torch.zeros(1, 4, 3, 4, 4), latent=image)
    return x, torch.tensor([0.93]), context, condition


def _run(pair, encoded, memory):
    losses = []
    plan = rig.plan(steps=6, swap_every=2, **memory)
    with rig.training():
        trainers = rig.trainers(plan, pair, encoded)
        train(plan, trainers, save=lambda *a: None, listen=lambda e: losses.append(e.loss))
    return losses, [p.detach().clone() for t in trainers.values() for p in t.adapters.parameters()]


def _sampled(model):
    from comfy.model_management import load_models_gpu

    with torch.inference_mode():
        load_models_gpu([model])
        return _velocity(model)


def _velocity(model):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 36, 3, 4, 4, generator=generator)
    context = torch.randn(1, 7, 64, generator=generator)
    network = model.model.diffusion_model
    return network(x, torch.tensor([900.0]), context=context, transformer_options={})
