"""Our optimizer step against a bare hand-written loop and against core's TrainLoraNode.

Same model object, latents, rank and targets for ours and the bare loop; core's node trains every weight
of the model, which is its way. The three take turns in one process, so drift of the machine cancels.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..training.loop import ExpertTrainer, build_trainers, train
from ..training.plans.plan import TrainingPlan
from ..training.plans.settings import ExpertSettings, LoraSettings, OptimizerSettings
from ..wan.families import sigma_range
from ..wan.miniature.layouts import TransformerSize
from .in_host import import_comfy, load_pair, random_clips

LATENT = (5, 16, 16)
# Wan's own text is 512 tokens of width 4096: beside a tiny clip it is most of the work, and core trains the
# layers that embed it. A short text keeps the proportion that a long clip has.
TEXTS = {"Wan's text": (512, 4096), "short text": (16, 64)}
RANK, ROUNDS, STEPS, CORE_STEPS = 16, 5, 10, (2, 12)


def main() -> None:
    import_comfy()
    torch.manual_seed(0)
    for name, text in TEXTS.items():
        size = TransformerSize(width=512, heads=4, layers=4, ffn_width=1024, text_width=text[1])
        print(
            f"{name} {text}; width {size.width}, {size.layers} layers, latent {LATENT}, rank {RANK}"
        )
        pair = load_pair(size)
        clips = random_clips(LATENT, count=4, text=text)
        print(f"  change of experts: {_swap(pair) * 1e3:.1f} ms")
        for recompute in (False, True):
            runs = {
                "ours": lambda r=recompute, p=pair, c=clips: _ours(p, c, r),
                "bare loop": lambda r=recompute, p=pair, c=clips: _bare(p["high_noise"], c, r),
                "core": lambda r=recompute, p=pair, c=clips: _core(p["high_noise"], c, r),
            }
            _report("recomputing blocks" if recompute else "keeping activations", _take_turns(runs))


def _take_turns(runs: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(ROUNDS + 1):
        for name, run in runs.items():
            taken = run()
            if turn:  # the first turn warms up
                seconds[name].append(taken)
    return seconds


def _report(title: str, seconds: dict[str, list[float]]) -> None:
    print(f"  {title}")
    for name, values in seconds.items():
        spread = f"{min(values) * 1e3:.1f} to {max(values) * 1e3:.1f}"
        print(f"    {name:10} {statistics.median(values) * 1e3:8.1f} ms a step ({spread})")
    for other in ("bare loop", "core"):
        ratios = [a / b for a, b in zip(seconds["ours"], seconds[other], strict=True)]
        print(
            f"    ours / {other:10} {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )


def _plan(recompute: bool) -> TrainingPlan:
    rates = ExpertSettings(rate=1e-4)
    return TrainingPlan(
        steps=STEPS,
        swap_every=STEPS // 2,
        save_every=1000,
        checkpoint_blocks=recompute,
        lora=LoraSettings(rank=RANK, alpha=float(RANK)),
        optimizer=OptimizerSettings(name="adamw"),
        high=rates,
        low=rates,
    )


def _ours(pair: dict, clips: list, recompute: bool) -> float:
    """The whole loop over both experts, a swap between them included."""
    from ..nodes.host.borders import gradients
    from ..nodes.host.expert import HostExpert

    plan = _plan(recompute)
    experts = {
        role: HostExpert(model, role, sigma_range(role, plan.boundary), checkpoint_blocks=recompute)
        for role, model in pair.items()
    }
    with gradients():
        trainers: dict[str, ExpertTrainer] = build_trainers(plan, experts, clips)
        began = time.perf_counter()
        train(plan, trainers, save=lambda *_: None, listen=lambda _: None)
        return (time.perf_counter() - began) / plan.steps


def _swap(pair: dict) -> float:
    """Seconds to leave one expert and enter the other, adapters attached: the median of many."""
    from ..nodes.host.borders import gradients
    from ..nodes.host.expert import HostExpert
    from ..wan.lora.adapters import AdapterSet

    experts = [HostExpert(model, role, sigma_range(role, 0.9)) for role, model in pair.items()]
    seconds = []
    with gradients():
        for expert in experts:
            expert.attach(AdapterSet({}))
        for turn in range(20):
            began = time.perf_counter()
            with experts[turn % 2].in_use():
                pass
            seconds.append(time.perf_counter() - began)
        for expert in experts:
            expert.detach()
    return statistics.median(seconds[2:])


def _bare(model: object, clips: list, recompute: bool) -> float:
    """What anyone would write by hand for one expert: no schedule, no events, nothing saved."""
    import comfy.model_management
    from comfy.ldm.modules.attention import attention_pytorch

    from ..nodes.host.borders import normal_weights

    network = model.model.diffusion_model
    options = {
        "optimized_attention_override": lambda _, *args, **kwargs: attention_pytorch(
            *args, **kwargs
        )
    }
    with torch.inference_mode(False), torch.enable_grad(), normal_weights(network):
        factors, handles = _hand_made_lora(network)
        if recompute:
            for block in network.blocks:
                block.forward = lambda *a, f=block.forward, **k: checkpoint(
                    f, *a, use_reentrant=False, **k
                )
        optimizer = torch.optim.AdamW(factors, lr=1e-4)
        comfy.model_management.in_training = True
        began = time.perf_counter()
        for step in range(STEPS):
            clip = clips[step % len(clips)]
            x0, noise = clip.x0[None], torch.randn(1, *clip.x0.shape)
            sigma = 0.9 + 0.1 * torch.rand(1)
            x = torch.cat(
                [(1 - sigma) * x0 + sigma * noise, clip.mask[None], clip.image_latent[None]], 1
            )
            out = network(
                x, sigma * 1000, context=clip.context[None], transformer_options=dict(options)
            )
            loss = F.mse_loss(out.float(), noise - x0)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(factors, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()
        seconds = (time.perf_counter() - began) / STEPS
        comfy.model_management.in_training = False
        for handle in handles:
            handle.remove()
        if recompute:
            for block in network.blocks:
                del block.forward
    return seconds


def _hand_made_lora(network: torch.nn.Module) -> tuple[list, list]:
    from ..nodes.host.wan_models import linear_layers
    from ..wan.lora.adapters import pick_layers

    factors, handles, modules = [], [], dict(network.named_modules())
    shapes = linear_layers(network)
    for name in pick_layers(shapes):
        down = torch.nn.Parameter(torch.randn(RANK, shapes[name].inputs) / 16)
        up = torch.nn.Parameter(torch.zeros(shapes[name].outputs, RANK))
        factors += [down, up]
        handles.append(
            modules[name].register_forward_hook(
                lambda _, x, y, down=down, up=up: y + F.linear(F.linear(x[0], down), up)
            )
        )
    return factors, handles


def _core(model: object, clips: list, recompute: bool) -> float:
    """Seconds a step from two runs of different length, so that its set-up (a copy of the model) is left out."""
    taken = []
    for steps in CORE_STEPS:
        began = time.perf_counter()
        _core_run(model, clips, steps, recompute)
        taken.append(time.perf_counter() - began)
    return (taken[1] - taken[0]) / (CORE_STEPS[1] - CORE_STEPS[0])


def _core_run(model: object, clips: list, steps: int, recompute: bool) -> None:
    from comfy_extras.nodes_train import TrainLoraNode

    with torch.inference_mode():
        latents = [{"samples": torch.stack([clip.x0 for clip in clips])}]
        values = {
            "concat_latent_image": torch.stack([c.image_latent for c in clips[:1]]),
            "concat_mask": torch.ones(1, 1, *LATENT),
        }
        positive = [[[clip.context[None], values]] for clip in clips]
        TrainLoraNode.execute(
            model=[model],
            latents=latents,
            positive=positive,
            batch_size=[1],
            steps=[steps],
            grad_accumulation_steps=[1],
            learning_rate=[1e-4],
            rank=[RANK],
            optimizer=["AdamW"],
            loss_function=["MSE"],
            seed=[0],
            training_dtype=["none"],
            lora_dtype=["fp32"],
            quantized_backward=[False],
            algorithm=["LoRA"],
            gradient_checkpointing=[recompute],
            checkpoint_depth=[1],
            offloading=[False],
            existing_lora=["[None]"],
            bucket_mode=[False],
            bypass_mode=[False],
        )
