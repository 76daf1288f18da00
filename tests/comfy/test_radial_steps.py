"""Dense steps are counted over the whole schedule, wherever a sampler begins in it and whatever it calls in between."""

from __future__ import annotations

import pytest
import torch
from tandem_wan.dev import radial_rig as rig
from tandem_wan.radial_attention.settings import RadialSettings

pytestmark = pytest.mark.comfy
FIRST = RadialSettings(dense_layers="", dense_steps=2, last_dense_steps=1)


@pytest.mark.parametrize("shift", [1.0, 5.0, 8.0])
@pytest.mark.parametrize("scheduler", ["simple", "sgm_uniform", "normal"])
@pytest.mark.parametrize(("steps", "cut"), [(4, 2), (6, 4), (20, 8), (50, 3)])
def test_a_part_of_a_schedule_knows_what_came_before_and_what_comes_after(
    pair, shift, scheduler, steps, cut
):
    from tandem_wan.nodes.host.radial_steps import steps_of

    sigmas = _sigmas(pair["high_noise"], steps, shift, scheduler)
    whole = steps_of(sigmas, shift)
    assert (whole.before, whole.total, whole.after) == (0, len(sigmas) - 1, 0)
    high, low = steps_of(sigmas[: cut + 1], shift), steps_of(sigmas[cut:], shift)
    for part, first, last in ((high, 0, cut), (low, cut, len(sigmas) - 1)):
        assert part.before == first
        for number in range(first, last):
            assert part.number(sigmas[number]) == number
            between = (sigmas[number] + sigmas[number + 1]) / 2
            assert part.dense(FIRST, between) == (number < 2 or part.total - 1 == number)
    if scheduler == "simple":
        assert high.total == low.total == steps


def test_without_the_shift_the_number_of_steps_before_would_be_wrong(pair):
    """The steps of a schedule are equally long only where the shift is taken off."""
    from tandem_wan.nodes.host.radial_steps import steps_of

    sigmas = _sigmas(pair["high_noise"], 20, 5.0, "simple")
    assert steps_of(sigmas[8:], 5.0).before == 8 != steps_of(sigmas[8:], 1.0).before


@pytest.mark.parametrize("sampler", ["euler", "heun", "res_multistep", "dpmpp_2s_ancestral"])
def test_both_parts_of_a_cut_run_count_the_steps_of_the_whole(pair, sampler):
    """Core's own sampler, which tells nobody what came before: 2 of 4 steps each, of which the first 2 are dense."""
    high, first = rig.patched(pair["high_noise"], dense_timesteps=2)
    low, second = rig.patched(pair["low_noise"], dense_timesteps=2)
    rig.sample(high, last=2, sampler=sampler)
    rig.sample(low, first=2, sampler=sampler)
    assert set(first.record.calls) <= {"in dense steps", "in dense blocks", "sparse"}
    assert "in dense steps" not in second.record.calls and second.record.calls["sparse"]
    if sampler == "euler":
        assert set(first.record.calls) == {"in dense steps"}


def test_four_steps_two_and_two_through_the_dual_sampler(pair):
    """Of a 4-step run with 2 dense steps, the high expert's are dense and the low expert's are not."""
    high, first = rig.patched(pair["high_noise"], preset="balanced", dense_timesteps=2)
    low, second = rig.patched(pair["low_noise"], preset="balanced", dense_timesteps=2)
    out, report = _dual(high, low)
    assert report.startswith("2 high + 2 low of 4 steps")
    assert first.record.calls == {"in dense steps": 8}
    assert second.record.calls == {"sparse": 6, "in dense blocks": 2}
    assert torch.isfinite(out).all()
    plain, _ = _dual(pair["high_noise"], pair["low_noise"])
    assert not torch.equal(out, plain)


def test_a_window_by_noise_takes_the_place_of_steps(pair):
    model, radial = rig.patched(pair["high_noise"], dense_window="sigma 1-0.9, 90-100%")
    rig.sample(model, steps=6)
    sigmas = _sigmas(pair["high_noise"], 6, 5.0, "simple")[:-1]
    # 90 % of a schedule with shift 5 is sigma 0.357.
    dense = sum(s > 0.9 or s <= 5 * 0.1 / (1 + 4 * 0.1) for s in sigmas)
    assert 0 < dense < 6 and radial.record.calls["in dense steps"] == 4 * dense


def test_a_run_without_a_sparse_step_is_refused_before_it_begins(pair):
    from tandem_wan.wan.errors import UserError

    model, radial = rig.patched(pair["high_noise"], dense_timesteps=4)
    with pytest.raises(UserError, match=r"none of the 4 steps.*Lower dense_timesteps"):
        rig.sample(model)
    assert not radial.record.calls


def _sigmas(model, steps, shift, scheduler):
    import comfy.samplers
    from tandem_wan.nodes.host.sampling import with_shift

    sampling = with_shift(model, shift).get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, scheduler, steps).tolist()


def _dual(high, low):
    from types import SimpleNamespace

    from tandem_wan.nodes.sampler import TandemDualSampler

    TandemDualSampler.hidden = SimpleNamespace(unique_id=None)
    size = (rig.FRAMES, 8, 8)
    positive, negative = rig.conditioning(size)
    with torch.inference_mode():
        latent, report = TandemDualSampler.execute(
            high, positive, negative, {"samples": torch.zeros(1, 16, *size)}, steps=4, cfg=1.0,
            shift=5.0, model_low=low,
        ).args  # fmt: skip
    return latent["samples"], report
