"""Every key that is written is one that the other trainer has, at its place."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.training.data.dataset import DatasetSettings
from tandem_wan.training.interop.documents import read_documents
from tandem_wan.training.interop.musubi_export import LOGISTIC
from tandem_wan.training.interop.plans import export_plan
from tandem_wan.training.optimizers.rate_schedules import SCHEDULES
from tandem_wan.training.plans.checks import ORDERS
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.settings import (
    ExpertSettings,
    LoraSettings,
    LossSettings,
    OptimizerSettings,
    PruneSettings,
    TimestepSettings,
)
from tandem_wan.wan.loss_weights import WEIGHTINGS
from tandem_wan.wan.timesteps import DISTRIBUTIONS

LISTS = Path(__file__).parents[2] / "data" / "peer_keys"
plans = st.builds(
    TrainingPlan,
    family=st.sampled_from(["auto", "single model"]),
    train=st.sampled_from(["both", "high", "low"]),
    task=st.sampled_from(["i2v", "t2v"]),
    shift=st.sampled_from([1.0, 5.0]),
    steps=st.just(300),
    order=st.sampled_from(ORDERS),
    offload_activations=st.booleans(),
    swap_blocks=st.sampled_from([0, 20, 40]),
    prune=st.builds(PruneSettings, last=st.sampled_from([0, 1, 3])),
    loss=st.builds(LossSettings, weighting=st.sampled_from(WEIGHTINGS)),
    timesteps=st.builds(TimestepSettings, distribution=st.sampled_from(DISTRIBUTIONS)),
    high=st.builds(
        ExpertSettings,
        schedule=st.sampled_from(SCHEDULES),
        warmup=st.sampled_from([0, 5]),
        rank=st.sampled_from([None, 8]),
        targets=st.sampled_from([None, (r"blocks\.1\..*",)]),
    ),
    lora=st.builds(
        LoraSettings,
        dropout=st.sampled_from([0.0, 0.1]),
        targets=st.sampled_from(
            [LoraSettings().targets, LoraSettings().targets[:1], (r"blocks\.0\..*",)]
        ),
    ),
    optimizer=st.builds(
        OptimizerSettings,
        name=st.sampled_from(["adamw", "adamw 8-bit kahan", "automagic"]),
        ema=st.sampled_from([0.0, 0.99]),
    ),
)
parts = st.lists(
    st.builds(
        DatasetSettings,
        folder=st.just(Path("/data/clips")),
        media=st.sampled_from(["auto", "video", "image"]),
        trigger=st.sampled_from(["", "MERMAID"]),
        frames=st.sampled_from([1, 81]),
        clip_mode=st.sampled_from(["head", "middle", "uniform", "overlapping", "scenes"]),
        fit=st.sampled_from(["keep aspect", "one size"]),
        regularisation=st.booleans(),
    ),
    max_size=2,
)


def keys(name):
    return {k: set(v) for k, v in json.loads((LISTS / f"{name}.json").read_text())["keys"].items()}


def documents(plan, folders, trainer):
    return read_documents([export_plan(plan, trainer, folders).text()])


@settings(max_examples=40)
@given(plan=plans, folders=parts)
def test_diffusion_pipe_has_every_key(plan, folders):
    known = keys("diffusion_pipe")
    for document in documents(plan, folders, "diffusion-pipe"):
        values = document.values
        if "directory" in values:
            assert set(values) <= known["dataset"]
            assert all(set(entry) <= known["dataset.directory"] for entry in values["directory"])
            continue
        assert set(values) <= known["config"]
        assert set(values["model"]) <= known["config.model"]
        assert values["model"]["timestep_sample_method"] in known["timestep_sample_method"]
        assert values["lr_scheduler"] in known["lr_scheduler"]
        assert values["activation_checkpointing"] in (True, False, "unsloth")
        # Two of 40 blocks stay on the device.
        assert values.get("blocks_to_swap", 0) <= 38
        assert set(values["adapter"]) <= known["config.adapter"]
        automagic = plan.optimizer.name == "automagic"
        which = "config.optimizer (automagic)" if automagic else "config.optimizer"
        assert set(values["optimizer"]) <= known[which] | {"type"}


@settings(max_examples=40)
@given(plan=plans, folders=parts)
def test_ai_toolkit_has_every_key(plan, folders):
    known = keys("ai_toolkit")
    written = documents(plan, folders, "ai-toolkit")

    def check(values, place):
        assert set(values) <= known[place], place
        for key, value in values.items():
            below = f"{place}.{key}".lstrip(".")
            for inner in value if isinstance(value, list) else [value]:
                if isinstance(inner, dict):
                    check(inner, below)

    for document in written:
        check(document.values, "")
        train = document.values["config"]["process"][0]["train"]
        assert train["lr_scheduler"] in known["lr_scheduler"]
        assert train["timestep_type"] in known["timestep_type"]


@settings(max_examples=40)
@given(plan=plans, folders=parts)
def test_musubi_tuner_has_every_argument(plan, folders):
    known = keys("musubi")
    for document in documents(plan, folders, "musubi-tuner"):
        values = document.values
        if "datasets" in values:
            assert set(values) <= known["dataset"]
            assert set(values["general"]) <= known["dataset.general"]
            for entry in values["datasets"]:
                kind = "images" if "image_directory" in entry else "videos"
                assert set(entry) <= known[f"dataset.datasets ({kind})"]
            continue
        assert set(values) <= known["arguments"]
        assert set(values["task"]) <= known["tasks"]
        for choice in ("timestep_sampling", "weighting_scheme", "lr_scheduler"):
            assert set(values.get(choice, [])) <= known[choice]
        # A warm-up is refused there beside a constant rate, and one of 40 blocks stays on the device.
        assert "lr_warmup_steps" not in values or values["lr_scheduler"] != ["constant"]
        assert int(values.get("blocks_to_swap", ["0"])[0]) <= 39
        words = values.get("network_args", [])
        # Each is cut at every = there.
        assert all(word.count("=") == 1 for word in words)
        names = {word.partition("=")[0] for word in words}
        assert names <= known["network_args"]
        # argparse wants whole numbers there.
        assert all(int(values[k][0]) >= 0 for k in ("max_train_steps", "seed", "network_dim"))
        assert all(int(v[0]) <= 1000 for k, v in values.items() if k.endswith("_timestep"))


@pytest.mark.parametrize("name", ["diffusion_pipe", "ai_toolkit", "musubi"])
def test_the_lists_say_where_they_are_from(name):
    found = json.loads((LISTS / f"{name}.json").read_text())
    assert found["repository"].count("/") == 1
    assert len(found["commit"]) == 40
    assert found["files"]


def test_the_sigmoid_of_a_wide_normal_variable_is_nearly_uniform():
    # P(sigmoid(LOGISTIC * z) < u) against u.
    normal = NormalDist()
    logit = [(u / 1000, math.log(u / (1000 - u))) for u in range(1, 1000)]
    assert max(abs(normal.cdf(x / LOGISTIC) - u) for u, x in logit) < 0.01
