"""The strength at every call of the model is the plan's, whatever the sampler and wherever the run is cut."""

from __future__ import annotations

import pytest
import torch
from tandem_wan.wan.lora.adapters import LoraAdapter
from tandem_wan.wan.lora.strength import parse_strength, schedule_curve
from tandem_wan.wan.lora.updates import Update, UpdateSet

pytestmark = pytest.mark.comfy
Q = "blocks.0.self_attn.q.weight"
STEPS, SHIFT = 6, 5.0
SAMPLERS = ("euler", "heun", "res_multistep", "dpmpp_2m", "dpm_2", "dpmpp_2s_ancestral", "uni_pc")
SCHEDULES = ("0.2 -> 1", "1 0.5 0.25 0", "1@s1, 1@s3 | 0.1@s5", "1@sigma0.95, 0@sigma0.3")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_call_has_the_strength_of_the_step_whose_interval_holds_its_sigma(pair, sampler):
    for text in SCHEDULES:
        model, strengths, sigmas = _probed(pair["high_noise"], text, strength=0.8)
        run = _sample(model, None, sampler=sampler)
        plan = [0.8 * factor for factor in schedule_curve(parse_strength(text), run.tolist())]
        assert len(strengths) >= STEPS
        for strength, sigma in zip(strengths, sigmas, strict=True):
            assert strength == _planned(plan, run, sigma), (text, sigma)
        if sampler in ("euler", "res_multistep", "dpmpp_2m"):
            assert strengths == plan


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_steps_and_parts_are_counted_over_both_experts(pair, sampler):
    for text in SCHEDULES:
        high, strengths_high, sigmas_high = _probed(pair["high_noise"], text)
        low, strengths_low, sigmas_low = _probed(pair["low_noise"], text, strength=0.5)
        run = _sample(high, low, sampler=sampler)
        plan = schedule_curve(parse_strength(text), run.tolist())
        assert min(sigmas_high[:-1]) >= 0.9 > max(sigmas_low) and strengths_low
        for strength, sigma in zip(strengths_high, sigmas_high, strict=True):
            assert strength == _planned(plan, run, sigma), (text, sigma)
        for strength, sigma in zip(strengths_low, sigmas_low, strict=True):
            assert strength == 0.5 * _planned(plan, run, sigma), (text, sigma)


def test_cores_own_sampler_counts_the_steps_that_it_takes(comfy, pair):
    """It cuts the schedule before the model sees it, so steps count from the cut; sigmas need no counting."""
    text = "0 -> 1"
    model, strengths, _ = _probed(pair["high_noise"], text)
    _core(comfy, model, first=2, last=5)
    assert strengths == [0.0, 0.5, 1.0]
    model, strengths, sigmas = _probed(pair["high_noise"], "1@sigma1, 0@sigma0")
    _core(comfy, model, first=2, last=5)
    torch.testing.assert_close(strengths, sigmas, rtol=0, atol=1e-5)


@pytest.mark.parametrize("text", ["1", "1 1 1", "1@sigma0.9"])
def test_a_constant_schedule_is_none_to_the_last_bit(pair, text):
    from tandem_wan.nodes.host.injection import AppliedFile, with_updates

    model = pair["high_noise"]
    lora = _lora(0.7)
    plain, scheduled = (
        with_updates(model, [AppliedFile(UpdateSet({Q: lora}), schedule)])
        for schedule in (None, parse_strength(text))
    )
    results = [_sample(m, None, result=True) for m in (plain, scheduled, model)]
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_a_schedule_changes_the_run_as_its_strengths_do_step_by_step(comfy, pair):
    """Against a run that is made by hand: at each step, a LoRA of constant strength."""
    from tandem_wan.nodes.host.injection import AppliedFile, with_updates

    model, lora = pair["high_noise"], _lora(1.0)
    schedule = parse_strength("1 0.5 0 -1")
    scheduled = with_updates(model, [AppliedFile(UpdateSet({Q: lora}), schedule)])
    ours = _core(comfy, scheduled, first=0, last=4, steps=4)
    x = torch.zeros(1, 16, 3, 8, 8)
    for step, strength in enumerate((1.0, 0.5, 0.0, -1.0)):
        at_step = with_updates(model, [AppliedFile(UpdateSet({Q: _lora(strength)}))])
        x = _core(comfy, at_step, first=step, last=step + 1, steps=4, latent=x)
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-5)
    assert not torch.equal(ours, _core(comfy, model, first=0, last=4, steps=4))


def test_a_sigma_belongs_to_the_step_that_it_starts_or_lies_in(comfy):
    from tandem_wan.nodes.host.strengths import place_of_sigma

    run = [1.0, 0.9, 0.5, 0.0]
    calls = {1.2: 0, 1.0: 0, 0.95: 0, 0.9: 1, 0.6: 1, 0.5: 2, 0.01: 2, 0.0: 2}
    # Samplers that go through logarithms come back a little above or below.
    calls |= {0.9 * (1 + 5e-7): 1, 0.9 * (1 - 5e-7): 1, 0.9 * (1 + 1e-3): 0}
    for sigma, step in calls.items():
        assert place_of_sigma(sigma, run) == (step, 3, run[step]), sigma


def test_two_schedules_on_one_layer_stay_one_product(pair):
    from comfy.model_management import load_models_gpu
    from tandem_wan.nodes.host.injection import AppliedFile, with_updates

    files = [
        AppliedFile(UpdateSet({Q: _lora(strength, seed)}), parse_strength(text))
        for seed, (strength, text) in enumerate([(0.5, "0 -> 1"), (2.0, "1 -> 0")])
    ]
    model = with_updates(pair["high_noise"], files)
    load_models_gpu([model])
    injection = model.get_injections("tandem")[0].inject.__self__
    (composite,) = injection._installed.values()
    ((_, site),) = composite._sites
    scale = site.product.scale
    assert scale.tolist() == [0.0] * 4 + [4.0] * 4
    composite.set_factors([0.25, 0.75])
    assert site.product.scale is scale, "rewritten in place"
    assert scale.tolist() == [0.25] * 4 + [3.0] * 4


def test_a_model_without_changing_strengths_has_no_wrapper(pair):
    from tandem_wan.nodes.host.injection import AppliedFile, with_updates

    model = pair["high_noise"]
    constant = with_updates(model, [AppliedFile(UpdateSet({Q: _lora(1.0)}), parse_strength("0.5"))])
    assert not any(constant.wrappers.get("predict_noise", {}).values())
    changing = with_updates(
        constant, [AppliedFile(UpdateSet({Q: _lora(1.0)}), parse_strength("0 -> 1"))]
    )
    again = with_updates(changing, [AppliedFile(UpdateSet({Q: _lora(1.0)}))])
    for model in (changing, again):
        assert [len(w) for w in model.wrappers["predict_noise"].values()] == [1]


class Probe(Update):
    """Notes the strength at which it runs."""

    def __init__(self, seen, strength):
        super().__init__()
        self.seen, self.strength = seen, strength

    def __deepcopy__(self, memo):
        return Probe(self.seen, self.strength)

    def forward(self, x, layer=None):
        self.seen.append(self.strength)
        return torch.zeros(*x.shape[:-1], 128)


def _probed(model, text, strength=1.0):
    from comfy.patcher_extension import WrappersMP
    from tandem_wan.nodes.host.injection import AppliedFile, with_updates

    strengths, sigmas = [], []
    probe = Probe(strengths, strength)
    probed = with_updates(model, [AppliedFile(UpdateSet({Q: probe}), parse_strength(text))]).clone()

    def note(executor, x, timestep, *args, **kwargs):
        before = len(strengths)
        out = executor(x, timestep, *args, **kwargs)
        sigmas.append(timestep.max().item())
        if len(strengths) == before:
            strengths.append(0.0)
        return out

    probed.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "probe", note)
    return probed, strengths, sigmas


def _planned(plan, run, sigma):
    """By the obvious search; a sigma that a sampler brought back from logarithms is the schedule's own."""
    for step in range(len(plan)):
        if sigma > run[step + 1].item() * (1 + 1e-5):
            return plan[step]
    return plan[-1]


def _lora(strength, seed=0):
    generator = torch.Generator().manual_seed(seed)
    down, up = (torch.randn(*s, generator=generator) / 4 for s in ((4, 128), (128, 4)))
    lora = LoraAdapter(down, up, 8.0).requires_grad_(False)
    lora.strength = strength
    return lora


def _sample(high, low, *, sampler="euler", result=False):
    from tandem_wan.nodes.host.sampling import Request, make_schedule, sample_pair, with_shift

    context, values = _condition()
    with torch.inference_mode():
        models = [model and with_shift(model, SHIFT) for model in (high, low)]
        schedule = make_schedule(
            models[0], steps=STEPS, scheduler="simple", sampler_name=sampler, denoise=1.0,
            boundary=0.9,
        )  # fmt: skip
        request = Request(
            positive=[[context, values]],
            negative=[[context * 0.5, values]],
            latent={"samples": torch.zeros(1, 16, 3, 8, 8)},
            seed=11,
            cfg=1.0,
            cfg_low=1.0,
            sampler_name=sampler,
        )
        samples = sample_pair(models[0], models[1], schedule, request)["samples"]
    return samples if result else schedule.sigmas


def _core(comfy, model, *, first, last, steps=STEPS, latent=None):
    """Some steps of a run, as KSamplerAdvanced takes them."""
    context, values = _condition()
    samples = torch.zeros(1, 16, 3, 8, 8) if latent is None else latent
    noise = torch.zeros_like(samples) if first else comfy.sample.prepare_noise(samples, 11)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, steps, 1.0, "euler", "simple", [[context, values]], [[context, values]],
            samples, disable_noise=bool(first), start_step=first, last_step=last, seed=11,
        )  # fmt: skip


def _condition():
    context = torch.randn(1, 8, 64, generator=torch.Generator().manual_seed(1))
    image = torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return context, {"concat_latent_image": image, "concat_mask": torch.ones(1, 1, 3, 8, 8)}
