"""The switch between the experts, and the two-stage run."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.comfy

# Steps of the high-noise expert by Wan's own rule, t >= boundary at the start of a step.
TABLE = [
    # boundary, steps, shift, high
    (0.9, 4, 5, 2),
    (0.875, 4, 5, 2),
    (0.9, 6, 5, 3),
    (0.9, 20, 5, 8),
    (0.9, 20, 8, 10),
    (0.875, 20, 8, 11),
    (0.9, 40, 5, 15),
    (0.875, 40, 12, 26),
]


@pytest.mark.parametrize(("boundary", "steps", "shift", "high"), TABLE)
def test_the_high_expert_takes_the_steps_of_wans_own_rule(pair, boundary, steps, shift, high):
    schedule = _schedule(pair["high_noise"], steps=steps, shift=shift, boundary=boundary)
    assert (schedule.high_steps, schedule.low_steps) == (high, steps - high)


def test_the_report_of_four_steps_at_shift_5_says_two_and_two(pair):
    schedule = _schedule(pair["high_noise"], steps=4, shift=5, boundary=0)
    assert schedule.report(two_experts=True) == (
        "2 high + 2 low of 4 steps; the low-noise expert takes over at sigma 0.833 (boundary 0.9, shift 5)"
    )


def test_a_shift_is_set_on_a_clone_and_the_model_keeps_its_own(pair):
    from tandem_wan.nodes.host.sampling import with_shift

    model = pair["high_noise"]
    before = model.get_model_object("model_sampling")
    shifted = with_shift(model, 3.0)
    assert shifted.get_model_object("model_sampling").shift == 3.0
    assert model.get_model_object("model_sampling") is before and before.shift == 8.0
    assert with_shift(model, 0) is model


def test_two_stages_with_one_model_equal_one_run(pair):
    """Euler has no memory, so cutting the schedule may change nothing but rounding."""
    high = pair["high_noise"]
    whole = _sample(high, None)
    for boundary in (0.95, 0.9, 0.5):
        split = _sample(high, high, boundary=boundary)
        torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("boundary", "who"), [(1.0, "high_noise"), (0.001, "low_noise")])
def test_a_stage_without_steps_is_left_out(pair, boundary, who):
    """At boundary 1 only the first step (sigma 1) is high; a boundary no sigma reaches leaves one expert alone."""
    high, low = pair["high_noise"], pair["low_noise"]
    if who == "high_noise":
        alone = _sample(high, low, boundary=0.001)
        expected = _sample(high, None)
    else:
        alone = _sample(high, low, boundary=1.0, denoise=0.4)
        expected = _sample(low, None, denoise=0.4)
    assert torch.equal(alone, expected)


def test_each_expert_sees_only_sigmas_of_its_own_side(pair):
    from comfy.patcher_extension import WrappersMP

    seen = {}

    def watched(role, model):
        clone = model.clone()

        def note(executor, x, timestep, *args, **kwargs):
            seen.setdefault(role, []).append(timestep.max().item())
            return executor(x, timestep, *args, **kwargs)

        clone.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "watch", note)
        return clone

    high, low = (watched(role, model) for role, model in pair.items())
    _sample(high, low, steps=6, shift=5.0, sampler_name="heun")
    assert min(seen["high_noise"][:-1]) >= 0.9 and max(seen["low_noise"]) < 0.9
    assert len(seen["high_noise"]) == 6  # heun: two calls a step, three steps


def test_the_low_expert_has_its_own_guidance(pair):
    high, low = pair["high_noise"], pair["low_noise"]
    same = _sample(high, low, cfg=2.0, cfg_low=0.0)
    assert torch.equal(same, _sample(high, low, cfg=2.0, cfg_low=2.0))
    assert not torch.equal(same, _sample(high, low, cfg=2.0, cfg_low=3.0))


def _schedule(model, *, steps, shift, boundary, sampler_name="euler", denoise=1.0):
    from tandem_wan.nodes.host.sampling import make_schedule, with_shift

    return make_schedule(
        with_shift(model, shift),
        steps=steps,
        scheduler="simple",
        sampler_name=sampler_name,
        denoise=denoise,
        boundary=boundary,
    )


def _sample(
    high, low, *, steps=4, shift=5.0, boundary=0.0, cfg=1.0, cfg_low=0.0, denoise=1.0,
    sampler_name="euler",
):  # fmt: skip
    from tandem_wan.nodes.host.sampling import Request, sample_pair, with_shift

    context = torch.randn(1, 8, 64, generator=torch.Generator().manual_seed(1))
    image = torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    values = {"concat_latent_image": image, "concat_mask": torch.ones(1, 1, 3, 8, 8)}
    latent = torch.zeros(1, 16, 3, 8, 8)
    if denoise < 1:
        latent = latent + 0.3
    with torch.inference_mode():
        models = [model and with_shift(model, shift) for model in (high, low)]
        schedule = _schedule(
            high, steps=steps, shift=shift, boundary=boundary, sampler_name=sampler_name,
            denoise=denoise,
        )  # fmt: skip
        request = Request(
            positive=[[context, values]],
            negative=[[context * 0.5, values]],
            latent={"samples": latent},
            seed=11,
            cfg=cfg,
            cfg_low=cfg_low,
            sampler_name=sampler_name,
        )
        return sample_pair(models[0], models[1], schedule, request)["samples"]
