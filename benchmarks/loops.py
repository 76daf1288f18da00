"""The loops that are compared: ours, one that anyone would write by hand, and core's TrainLoraNode."""

from __future__ import annotations

import time

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..training.expert_trainer import ExpertTrainer, build_trainers
from ..training.loop import train
from ..training.plans.plan import TrainingPlan
from ..training.plans.settings import ExpertSettings, LoraSettings, OptimizerSettings
from ..wan.families import sigma_range

RANK, STEPS, CORE_STEPS = 16, 10, (2, 12)


def _plan(recompute: bool, steps: int) -> TrainingPlan:
    rates = ExpertSettings(rate=1e-4)
    return TrainingPlan(
        steps=steps,
        swap_every=min(10, steps // 2),
        save_every=1000,
        checkpoint_blocks=recompute,
        lora=LoraSettings(rank=RANK, alpha=float(RANK)),
        optimizer=OptimizerSettings(name="adamw"),
        high=rates,
        low=rates,
    )


def ours(
    pair: dict, clips: list, recompute: bool, *, steps: int = STEPS, first: bool = False
) -> float:
    """Seconds a step of the whole loop over both experts, a change between them included; or of the first one, from
    the start of the run to its event."""
    from ..nodes.host.borders import gradients
    from ..nodes.host.expert import HostExpert

    plan = _plan(recompute, steps)
    experts = {
        role: HostExpert(model, role, sigma_range(role, plan.boundary), checkpoint_blocks=recompute)
        for role, model in pair.items()
    }
    with gradients():
        trainers: dict[str, ExpertTrainer] = build_trainers(plan, experts, clips)
        began = time.perf_counter()
        ends: list[float] = []
        listen = lambda _: ends.append(time.perf_counter())  # noqa: E731
        train(plan, trainers, save=lambda *_: None, listen=listen)
        return ends[0] - began if first else (time.perf_counter() - began) / plan.steps


def bare(model: object, clips: list, recompute: bool, *, steps: int = STEPS) -> float:
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
        for step in range(steps):
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
        seconds = (time.perf_counter() - began) / steps
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


def core(
    model: object, clips: list, recompute: bool, *, dtype: str = "fp32", depth: int = 1
) -> float:
    """Seconds a step, from two runs of different length, so that its set-up (a copy of the model) is left out."""
    taken = []
    for steps in CORE_STEPS:
        began = time.perf_counter()
        _core_run(model, clips, steps, recompute, dtype, depth)
        taken.append(time.perf_counter() - began)
    return (taken[1] - taken[0]) / (CORE_STEPS[1] - CORE_STEPS[0])


def _core_run(
    model: object, clips: list, steps: int, recompute: bool, dtype: str, depth: int
) -> None:
    from comfy_extras.nodes_train import TrainLoraNode

    with torch.inference_mode():
        latents = [{"samples": torch.stack([clip.x0 for clip in clips])}]
        values = {
            "concat_latent_image": torch.stack([c.image_latent for c in clips[:1]]),
            "concat_mask": torch.ones(1, 1, *clips[0].x0.shape[1:]),
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
            training_dtype=[dtype],
            lora_dtype=["fp32"],
            quantized_backward=[False],
            algorithm=["LoRA"],
            gradient_checkpointing=[recompute],
            checkpoint_depth=[depth],
            offloading=[False],
            existing_lora=["[None]"],
            bucket_mode=[False],
            bypass_mode=[False],
        )
