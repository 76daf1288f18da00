"""Every optimizer goes on from a checkpoint to the last bit, and the average of the weights lies beside them."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tandem_wan.training.checkpoints import STATE_FILE, CheckpointStore
from tandem_wan.training.loop import train
from tandem_wan.training.optimizers import low_bit
from tandem_wan.training.optimizers.averages import WeightAverage
from tandem_wan.training.optimizers.kahan import REMAINDER
from tandem_wan.training.plans.settings import ExpertSettings
from tandem_wan.wan.lora.files import adapter_tensors, read_metadata, read_tensors, tandem_metadata

METADATA = {"name": "mermaid", "pair_id": "0123"}
COSINE = ExpertSettings(rate=1e-2, schedule="cosine with restarts", warmup=2, cycles=2)
ALL = [
    ("adamw", "float32"),
    ("adamw 8-bit", "float32"),
    ("adamw 8-bit kahan", "float32"),
    ("adamw kahan", "bfloat16"),
    ("adamw 8-bit kahan", "bfloat16"),
    ("adamw", "bfloat16"),
    ("automagic", "bfloat16"),
    ("prodigy", "float32"),
    ("library:Lion", "bfloat16"),
    ("library:SOAP", "float32"),
    ("library:AggMo", "float32"),
    ("library:AdaFactor", "float32"),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """The toys' weights are too small for the codes of 8 bits."""
    monkeypatch.setattr(low_bit, "BLOCK", 4)
    monkeypatch.setattr(low_bit, "LEAST", 16)


def make_plan(toys, name="adamw", dtype="float32", *, ema=0.0, **changes):
    plan = toys.plan(name, steps=12, rank=4, high=COSINE, **changes)
    return replace(
        plan, lora=replace(plan.lora, dtype=dtype), optimizer=replace(plan.optimizer, ema=ema)
    )


def run(toys, plan, trainers, store, first_step=0, until=None):
    """(loss, norm, rate) of every step done."""
    events = []
    train(
        plan,
        trainers,
        save=lambda step, t: store.save(step, t, METADATA),
        listen=events.append,
        first_step=first_step,
        turns=toys.stop_when(lambda: until is not None and first_step + len(events) >= until),
    )
    return [(e.loss, e.grad_norm, e.rate) for e in events]


def remembered(trainers):
    """Everything that the optimizers and the averages hold, as bytes."""
    found = []
    for trainer in trainers.values():
        for weight in trainer.adapters.parameters():
            state = trainer.optimizer.state[weight]
            found.append({n: v.clone() for n, v in state.items() if torch.is_tensor(v)})
        found.append(dict(enumerate(trainer.average.tensors if trainer.average else ())))
    return found


@pytest.mark.parametrize(("name", "dtype"), ALL)
def test_every_optimizer_resumes_to_the_last_bit(toys, tmp_path, name, dtype):
    plan = make_plan(toys, name, dtype, ema=0.9)
    unbroken = toys.trainers(plan)
    events = run(toys, plan, unbroken, CheckpointStore(tmp_path / "unbroken", "x"))

    store, pieces, at = CheckpointStore(tmp_path / "cut", "x"), [], 0
    for until in (5, 9, None):
        torch.manual_seed(until or 0)  # a new process has other random numbers
        trainers = toys.trainers(plan)
        assert store.resume(trainers) == at
        pieces += run(toys, plan, trainers, store, first_step=at, until=until)
        at = until
    assert pieces == events
    assert toys.same(toys.weights(trainers), toys.weights(unbroken))
    for ours, theirs in zip(remembered(trainers), remembered(unbroken), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[n], theirs[n]) for n in ours)
        assert all(ours[n].dtype == theirs[n].dtype for n in ours)


def test_the_state_file_holds_codes_scales_and_remainders_as_plain_tensors(toys, tmp_path):
    plan = make_plan(toys, "adamw 8-bit kahan", "bfloat16")
    store = CheckpointStore(tmp_path, "x")
    run(toys, plan, toys.trainers(plan), store, until=4)
    tensors = load_file(tmp_path / "step_000004" / STATE_FILE)
    kinds = {key.rpartition("/")[2]: t.dtype for key, t in tensors.items() if "/state/" in key}
    assert kinds["exp_avg_codes"] == kinds["exp_avg_sq_root_codes"] == torch.uint8
    assert kinds["exp_avg_scale"] == torch.float32
    assert kinds[REMAINDER] == torch.int16


@pytest.mark.parametrize("name", ["adamw", "automagic", "adamw 8-bit", "adamw 8-bit kahan"])
def test_a_state_from_before_there_were_values_and_averages_is_read(toys, tmp_path, name):
    """Its 8-bit runs were plain AdamW: they go on with the 32-bit moments that they have."""
    old = make_plan(toys, "automagic" if name == "automagic" else "adamw")
    store = CheckpointStore(tmp_path, "x")
    run(toys, old, toys.trainers(old), store, until=6)
    state = tmp_path / "step_000006" / STATE_FILE
    save_file({k: t for k, t in load_file(state).items() if "/values" not in k}, state)

    outcomes = []
    for plan in (old, make_plan(toys, name, ema=0.9)):
        trainers = toys.trainers(plan)
        assert store.resume(trainers) == 6
        for trainer in trainers.values():
            if trainer.average:
                exact = trainer.adapters.parameters()
                assert all(map(torch.equal, trainer.average.tensors, exact))
        other = CheckpointStore(tmp_path / f"{len(outcomes)}", "x")
        outcomes.append(run(toys, plan, trainers, other, first_step=6))
    losses = [[loss for loss, _, _ in outcome] for outcome in outcomes]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_rate_of_each_step_is_the_schedules_over_the_experts_own_steps(toys, tmp_path):
    plan = make_plan(toys)
    trainers = toys.trainers(plan)
    seen = []
    train(plan, trainers, save=lambda step, t: None, listen=seen.append)
    high = [event.rate for event in seen if event.role == "high_noise"]
    low = {event.rate for event in seen if event.role == "low_noise"}
    assert low == {plan.low.rate}
    assert high[:3] == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2])
    assert min(high) > 0
    assert len(high) == trainers["high_noise"].num_steps


def test_an_average_is_the_weighted_sum_of_all_weights_that_were():
    generator = torch.Generator().manual_seed(0)
    steps = [torch.randn(3, 4, generator=generator) for _ in range(41)]
    average, slow = WeightAverage([steps[0]], 0.8), steps[0].double()
    for index, weight in enumerate(steps[1:]):
        average.update([weight], index)
        keep = min(0.8, (1 + index) / (10 + index))
        slow = keep * slow + (1 - keep) * weight.double()
    torch.testing.assert_close(average.tensors[0].double(), slow, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_average_changes_nothing_of_the_run_and_is_a_second_pair_of_files(toys, tmp_path, dtype):
    plain, averaged = (make_plan(toys, "adamw kahan", dtype, ema=ema) for ema in (0.0, 0.9))
    without, with_it = toys.trainers(plain), toys.trainers(averaged)
    stores = CheckpointStore(tmp_path / "a", "mermaid"), CheckpointStore(tmp_path / "b", "mermaid")
    assert run(toys, plain, without, stores[0]) == run(toys, averaged, with_it, stores[1])
    names = [{p.name for p in store.folder.rglob("*.safetensors")} for store in stores]
    roles = ("high_noise", "low_noise")
    assert names[0] == {f"mermaid_000012_{role}.safetensors" for role in roles}
    assert names[1] - names[0] == {f"mermaid_000012_ema_{role}.safetensors" for role in roles}
    for role, trainer in with_it.items():
        raw, kept = stores[1].file(12, role), stores[1].average_file(12, role)
        bare, beside = read_tensors(stores[0].file(12, role)), read_tensors(raw)
        assert all(torch.equal(bare[key], beside[key]) for key in bare | beside)
        saved = read_tensors(kept)
        expected = adapter_tensors(trainer.averaged())
        assert saved.keys() == read_tensors(raw).keys()
        assert all(torch.equal(saved[key], expected[key]) for key in saved)
        assert {t.dtype for t in saved.values()} == {torch.float32}
        own = tandem_metadata(read_metadata(kept))
        assert (own["pair_id"], own["ema"], own["expert"]) == ("0123-ema", 0.9, role)
        assert tandem_metadata(read_metadata(raw))["pair_id"] == "0123"
        assert json.loads(read_metadata(kept)["tandem"])["step"] == 12
    assert stores[1].steps() == [12]


def test_what_is_published_is_the_weights_and_not_their_average(toys, tmp_path):
    plan = make_plan(toys, ema=0.9)
    store = CheckpointStore(tmp_path / "run", "mermaid")
    run(toys, plan, toys.trainers(plan), store)
    final = store.publish(dict.fromkeys(plan.roles(), 12), tmp_path / "loras")
    for role, path in final.items():
        assert path.read_bytes() == store.file(12, role).read_bytes()
    assert len(list((tmp_path / "loras").iterdir())) == 2
