"""A run that goes on from a LoRA begins at what the LoRA does, and is another run than one that begins anew."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import pytest
import torch
from tandem_wan.training.expert_trainer import build_trainers
from tandem_wan.training.job import Identity, open_job
from tandem_wan.training.loop import train
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.settings import AlphaPhases, PatternSettings
from tandem_wan.training.start import (
    FILE,
    Factors,
    RunStart,
    StartPart,
    begin_with,
    read_start,
    require_fit,
    write_start,
)
from tandem_wan.wan.errors import UserError
from tandem_wan.wan.lora.adapters import AdapterSet, new_adapters

SHAPES = {"blocks.0.self_attn.o": (15, 4), "blocks.0.ffn.0": (15, 24), "blocks.0.ffn.2": (24, 4)}
PART = StartPart(role="high_noise", row=1, file="a.safetensors", sha256="0a", strength=0.5)
IDENTITY = Identity(
    name="mermaid",
    plan=TrainingPlan(),
    dataset="d1",
    base=(("high_noise", "b1"),),
    vae="v1",
    text_encoder="t1",
)


def factors(rank: int, *layers: str) -> dict[str, Factors]:
    generator = torch.Generator().manual_seed(rank)
    return {
        name: Factors(
            torch.randn(rank, SHAPES[name][0], generator=generator),
            torch.randn(SHAPES[name][1], rank, generator=generator),
        )
        for name in layers or SHAPES
    }


def delta(adapters: AdapterSet, name: str) -> torch.Tensor:
    inputs, outputs = SHAPES[name]
    return adapters[name].delta(torch.empty(outputs, inputs))


@pytest.mark.parametrize("rank", [1, 3, 4])
@pytest.mark.parametrize("alpha", [1.0, 4.0, 32.0])
def test_adapters_do_what_the_factors_do_whatever_their_own_rank_and_alpha(rank, alpha):
    adapters = new_adapters(SHAPES, rank=4, alpha=alpha, seed=1)
    begin_with(adapters, given := factors(rank), "high_noise")
    for name, (down, up) in given.items():
        torch.testing.assert_close(delta(adapters, name), up @ down, rtol=1e-5, atol=1e-6)
        assert (adapters[name].rank, adapters[name].alpha) == (4, alpha)


def test_directions_that_the_file_lacks_are_fresh_and_have_a_gradient():
    adapters, fresh = (new_adapters(SHAPES, rank=4, alpha=4.0, seed=1) for _ in range(2))
    begin_with(adapters, factors(2), "high_noise")
    for name, adapter in adapters.items():
        assert torch.equal(adapter.down[2:], fresh[name].down[2:])
        assert not adapter.up[:, 2:].any()
        adapter(torch.ones(1, SHAPES[name][0])).sum().backward()
        assert adapter.up.grad[:, 2:].abs().min() > 0


def test_layers_that_the_file_lacks_begin_anew():
    adapters, fresh = (new_adapters(SHAPES, rank=4, alpha=4.0, seed=1) for _ in range(2))
    begin_with(adapters, factors(4, "blocks.0.ffn.0"), "high_noise")
    for name in ("blocks.0.self_attn.o", "blocks.0.ffn.2"):
        assert torch.equal(adapters[name].down, fresh[name].down) and not adapters[name].up.any()


def test_a_larger_rank_is_refused_with_the_rank_to_set():
    ranks = {"blocks.0.ffn.0": 8, "blocks.0.ffn.2": 64}
    with pytest.raises(UserError, match=r"has rank 64 in blocks\.0\.ffn\.2.*Set lora\.rank to 64"):
        require_fit(ranks, dict.fromkeys(SHAPES, 4), SHAPES, "high_noise", "a.safetensors")


def test_layers_that_the_plan_does_not_train_are_refused_with_the_targets_to_add():
    ranks = {f"blocks.{n}.cross_attn.k_img": 4 for n in range(7)}
    with pytest.raises(UserError) as refused:
        require_fit(ranks, dict.fromkeys(SHAPES, 4), [*SHAPES, *ranks], "low_noise", "a")
    assert "blocks.0.cross_attn.k_img" in refused.value.came and "2 more" in refused.value.came
    assert r"lora.targets on the plan: blocks\.\d+\.cross_attn\.k_img." in refused.value.to_do
    with pytest.raises(UserError, match=r"patch_embedding cannot carry a LoRA here.*Apply Stack"):
        require_fit({"patch_embedding": 4}, {}, SHAPES, "low_noise", "a")


def test_a_trainer_begins_with_the_alpha_of_its_layer_and_of_its_first_phase(toys):
    given = factors(3)
    for changes in (
        {"patterns": (PatternSettings(pattern=r"blocks\.0\.ffn\.0", rank=8, alpha=2.0),)},
        {"alpha_phases": AlphaPhases(alphas=(1.0, 2.0, 6.0))},
        {},
    ):
        plan = toys.plan(**changes)
        trainers = build_trainers(
            plan,
            toys.experts(plan),
            toys.clips(),
            lambda role: given if role == "low_noise" else {},
        )
        started, fresh = (trainers[role].adapters for role in ("low_noise", "high_noise"))
        for name, (down, up) in given.items():
            torch.testing.assert_close(delta(started, name), up @ down, rtol=1e-5, atol=1e-6)
            assert not delta(fresh, name).any()


def test_the_average_begins_at_the_lora_too(toys):
    plan = toys.plan()
    plan = replace(plan, optimizer=replace(plan.optimizer, ema=0.9))
    start = {"start": lambda role: factors(4)}
    trainers = build_trainers(plan, toys.experts(plan), toys.clips(), **start)
    for trainer in trainers.values():
        averaged = trainer.averaged()
        for name in trainer.adapters:
            assert torch.equal(averaged[name].up, trainer.adapters[name].up)
            assert averaged[name].up.any()


def test_a_run_that_went_on_from_a_lora_resumes_to_the_bit_without_it(toys, tmp_path):
    def trained(first_start, steps, folder):
        plan = toys.plan(save_every=4, steps=8)
        job = open_job(folder, replace(IDENTITY, plan=plan))
        trainers = build_trainers(plan, toys.experts(plan), toys.clips(), first_start)
        first = job.store.resume(trainers)

        def save(step, trainers):
            job.store.save(step, trainers, {})

        turns = toys.stop_when(lambda: len(steps) == 5) if steps is not None else None
        train(
            plan,
            trainers,
            save=save,
            listen=lambda e: steps.append(e) if steps is not None else None,
            first_step=first,
            turns=turns,
        )
        return toys.weights(trainers)

    def start(role):
        return factors(3)

    whole = trained(start, None, tmp_path / "whole")
    trained(start, [], tmp_path / "parts")
    resumed = trained(None, None, tmp_path / "parts")
    anew = trained(None, None, tmp_path / "anew")
    assert toys.same(whole, resumed) and not toys.same(whole, anew)


def test_a_run_that_begins_anew_keeps_the_id_that_it_had():
    known = {key: value for key, value in asdict(IDENTITY).items() if key != "start"}
    known["plan"] = {}  # what differs from the default plan
    text = json.dumps(known, sort_keys=True)
    assert IDENTITY.job_id() == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert IDENTITY.job_id() != replace(IDENTITY, start="d").job_id()


def test_the_name_of_a_run_with_another_start_is_refused(tmp_path):
    open_job(tmp_path, replace(IDENTITY, start="a")).set_state("running")
    with pytest.raises(UserError, match="another start"):
        open_job(tmp_path, replace(IDENTITY, start="b"))
    with pytest.raises(UserError, match="another start"):
        open_job(tmp_path, IDENTITY)


def test_a_digest_goes_by_weights_strength_and_expert_and_not_by_names():
    def digest(**changes):
        return RunStart(rows="[]", parts=(replace(PART, **changes),)).digest()

    assert digest() == digest(file="renamed.safetensors", row=3)
    others = [digest(sha256="0b"), digest(strength=0.6), digest(role="low_noise")]
    assert len({digest(), *others}) == 4


def test_a_folder_remembers_what_its_run_went_on_from(tmp_path):
    assert read_start(tmp_path) is None
    start = RunStart(rows='[{"lora": "a"}]', parts=(PART, replace(PART, role="low_noise")))
    write_start(tmp_path, start)
    assert read_start(tmp_path) == start
    assert start.notes(("high_noise", "low_noise"))[1].startswith("The low_noise expert goes on")
    assert "begins anew" in RunStart(rows="", parts=(PART,)).notes(("high_noise", "low_noise"))[1]
    (tmp_path / FILE).write_text('{"rows": 1}')
    with pytest.raises(UserError, match="Move the folder"):
        read_start(tmp_path)
