"""What a run leaves behind in the host: nothing, however it ends, and the next clip is the one of before."""

from __future__ import annotations

import pytest
import torch
from tandem_wan.dev import training_rig as rig
from tandem_wan.training.loop import train
from tandem_wan.training.plans.settings import LoraSettings
from tandem_wan.training.preview import Preview
from tandem_wan.training.samples import EncodedClip
from tandem_wan.training.turns import RunStopped, Turns
from tandem_wan.wan.conditions import start_frame_mask
from tandem_wan.wan.shapes import LatentSize

pytestmark = pytest.mark.comfy
ROLES = ("high_noise", "low_noise")
LAYERS = (r"blocks\.0\.self_attn\.q", r"blocks\.3\.ffn\.2")
NOTES = {"comfy_patched_weights", "comfy_cast_weights", "prev_comfy_cast_weights"}
"""What the host's loader notes of a layer: on the device, or to be brought when it is needed."""


class BrokenError(Exception):
    """What a part of a run raises in these tests."""


def nothing(*args):
    pass


def raising(*args):
    raise BrokenError


class Stopping(Turns):
    """Ends the run before its fifth piece of work."""

    pieces = 0

    def over(self):
        self.pieces += 1
        return self.pieces > 4

    def wait(self):
        raise RunStopped


def everything(pair):
    """All that a run touches, in a form that can be compared."""
    import comfy.model_management as host

    found = {
        "in_training": host.in_training,
        "training_fp8_bwd": host.training_fp8_bwd,
        "random numbers": torch.random.get_rng_state().tolist(),
    }
    for role, model in pair.items():
        found[role] = [
            dict(model.patches),
            dict(model.object_patches),
            dict(model.injections),
            dict(model.attachments),
            {kind: {k: list(v) for k, v in by.items()} for kind, by in model.callbacks.items()},
            {kind: {k: list(v) for k, v in by.items()} for kind, by in model.wrappers.items()},
            sorted(model.model_options.get("transformer_options", {})),
        ]
        for name, module in model.model.named_modules():
            hooks = [len(hooks) for key, hooks in vars(module).items() if key.endswith("_hooks")]
            # Its own attributes too: a method that is put on the instance hides that of the class.
            found[f"{role} {name}"] = (type(module), set(vars(module)) - NOTES, hooks)
        for name, weight in model.model.named_parameters():
            facts = (id(weight), weight.data_ptr(), weight.is_inference(), weight.requires_grad)
            found[f"{role} {name}"] = (*found.get(f"{role} {name}", ()), *facts, weight.grad)
    return found


def modes_of_torch():
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch._C._autograd._saved_tensors_hooks_is_enabled(),
    )


def made_up_clips(count=3):
    generator = torch.Generator().manual_seed(1)
    shapes = {"x0": (16, 3, 8, 8), "image_latent": (16, 3, 8, 8), "context": (6, 64)}
    clips = []
    for number in range(count):
        parts = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        mask = start_frame_mask(LatentSize(3, 8, 8))[0]
        clips.append(EncodedClip(name=str(number), mask=mask, **parts))
    return clips


def sampled(pair):
    """Four steps of both experts."""
    from tandem_wan.nodes.host.sampling import Request, make_schedule, sample_pair

    generator = torch.Generator().manual_seed(2)
    context = torch.randn(1, 8, 64, generator=generator)
    values = {
        "concat_latent_image": torch.randn(1, 16, 3, 8, 8, generator=generator),
        "concat_mask": torch.ones(1, 1, 3, 8, 8),
    }
    with torch.inference_mode():
        # The MODELs themselves: a clone with a patch stays in the shared modules until the host loads another.
        schedule = make_schedule(
            pair["high_noise"],
            steps=4,
            scheduler="simple",
            sampler_name="euler",
            denoise=1.0,
            boundary=0.9,
        )
        request = Request(
            positive=[[context, values]],
            negative=[[context, values]],
            latent={"samples": torch.zeros(1, 16, 3, 8, 8)},
            seed=11,
            cfg=1.0,
            cfg_low=0.0,
            sampler_name="euler",
        )
        return sample_pair(*(pair[role] for role in ROLES), schedule, request)["samples"].clone()


def train_until(end, pair, clips):
    """A run that ends in one of many ways."""
    lora = LoraSettings(rank=4, alpha=4.0, dropout=0.2, targets=LAYERS)
    light = {"swap_blocks": 2, "offload_activations": True} if "light" in end else {}
    plan = rig.plan(steps=4, swap_every=1, accumulate=2, save_every=2, lora=lora, **light)
    trainers = rig.trainers(plan, pair, clips)
    options = {"save": nothing, "listen": nothing}
    if end == "a listener fails":
        options["listen"] = lambda event: raising() if event.step == 3 else None
    elif end == "a save fails":
        options["save"] = raising
    elif end == "stopped":
        options["turns"] = Stopping()
    elif end == "with previews":
        options["preview"] = Preview(
            every=1, clips=clips[:1], negative=clips[0].context, show=nothing, steps=2
        )
    elif end in ("the forward pass fails", "the backward pass fails", "Ctrl-C"):
        error = KeyboardInterrupt if end == "Ctrl-C" else BrokenError
        expert = trainers["low_noise"].expert
        velocity = expert.velocity

        def broken(*args, **kwargs):
            out = velocity(*args, **kwargs)
            if end != "the backward pass fails":
                raise error
            out.register_hook(raising)
            return out

        expert.velocity = broken
    elif end in ("a block fails", "a block fails, light"):
        block = pair["low_noise"].model.diffusion_model.blocks[2].ffn[0]
        hook = block.register_forward_hook(raising)
    try:
        with rig.training():
            return train(plan, trainers, **options)
    finally:
        if "a block fails" in end:
            hook.remove()


@pytest.mark.parametrize(
    "end",
    [
        "done",
        "stopped",
        "with previews",
        "done, light",
        "a block fails, light",
        "a listener fails",
        "a save fails",
        "a block fails",
        "the forward pass fails",
        "the backward pass fails",
        "Ctrl-C",
    ],
)
def test_bar_c16_the_host_is_as_it_was_and_samples_the_same_clip(pair, end):
    """Whether it trains in a thread of its own or in a prompt, which is in inference mode."""
    clips, clip = made_up_clips(), sampled(pair)
    before = everything(pair)
    for in_a_prompt in (False, True):
        with torch.inference_mode(in_a_prompt):
            modes = modes_of_torch()
            if end in ("done", "done, light", "stopped", "with previews"):
                assert train_until(end, pair, clips) == ("stopped" if end == "stopped" else "done")
            else:
                with pytest.raises((BrokenError, KeyboardInterrupt)):
                    train_until(end, pair, clips)
            assert modes_of_torch() == modes
        after = everything(pair)
        assert after.keys() == before.keys()
        assert [key for key in before if before[key] != after[key]] == []
    assert torch.equal(sampled(pair), clip)
