"""What the nodes take, say and refuse, in the host's own validation and execution."""

from __future__ import annotations

import pytest
import torch
from tandem_wan.dev import radial_rig as rig

pytestmark = pytest.mark.comfy


def test_the_report_says_what_will_be_dense_and_what_computes_it(pair):
    report = _report(pair["high_noise"], dense_layers="", dense_timesteps=-1)
    assert report.splitlines() == [
        "Radial attention, balanced: decay 0.2, the first 2 steps and blocks 0-1 dense.",
        "4 blocks; backend gather: exact on any device (compiled flex_attention needs a GPU, and this is cpu).",
    ]


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        (
            "quality",
            "decay 0.8, the first 25% of the steps (2 or more) and the last step and blocks 0-1 dense",
        ),
        ("fast", "decay 0.2, the first step and block 0 dense"),
        ("reference parity", "the published layout, decay 0.2, the first 24% of the steps"),
    ],
)
def test_a_presets_values_count_unless_set(pair, preset, words):
    assert words in _report(pair["high_noise"], preset=preset, dense_layers="", dense_timesteps=-1)
    set_by_hand = _report(
        pair["high_noise"], preset=preset, dense_layers="-1", dense_timesteps=3, decay_factor=0.5,
        last_dense_timesteps=0,
    )  # fmt: skip
    assert "decay 0.5, the first 3 steps and blocks -1 dense" in set_by_hand


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"dense_layers": "0-9"}, "dense_layers names 0-9.*4 blocks.*Change dense_layers"),
        ({"dense_layers": "0-3"}, "dense_layers is 0-3, which is every block"),
        ({"dense_layers": "two"}, "dense_layers has 'two'.*0-1,-1"),
        ({"decay_factor": -0.5}, "decay_factor is -0.5.*0.2 to 1"),
        ({"backend": "flex"}, "flex cannot run: compiled flex_attention needs a GPU.*Take auto or gather"),
        ({"backend": "sparge"}, "backend is 'sparge'|It can be auto"),
        ({"preset": "faster"}, "preset is 'faster'.*balanced, quality"),
        ({"dense_window": "10"}, "dense_window has '10'.*0-25%"),
        ({"dense_window": "sigma 0.5-0.9"}, "falls from 1 to 0"),
        ({"sink": "last"}, "sink is last.*first and last"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_an_error_of_three_parts(pair, inputs, words):
    from tandem_wan.wan.errors import UserError

    with pytest.raises(UserError, match=words) as caught:
        rig.patched(pair["high_noise"], **inputs)
    assert all((caught.value.came, caught.value.can_be, caught.value.to_do))


@pytest.mark.parametrize(
    "inputs",
    [{"decay_factor": -0.5}, {"preset": "faster"}, {"dense_layers": "two"}, {"dense_window": "10"}],
)
def test_what_the_widgets_say_is_checked_when_it_is_queued(radial_host, pair, inputs):
    said = radial_host.refused_node(
        "TandemRadialAttention",
        model=radial_host.give(pair["high_noise"]) and ["given", 0],
        **{"preset": "balanced", **inputs},
    )
    assert next(iter(inputs)) in said


def test_what_is_no_wan_model_is_refused(pair):
    from types import SimpleNamespace

    from tandem_wan.wan.errors import UserError

    other = SimpleNamespace(model=SimpleNamespace(diffusion_model=torch.nn.Linear(2, 2)))
    with pytest.raises(UserError, match="takes a Wan 2.1 or 2.2 video model".replace(".", r"\.")):
        rig.patched(other)


def test_the_calls_node_passes_the_latent_on_and_tells_of_both_experts(pair):
    from types import SimpleNamespace

    from tandem_wan.nodes.radial import TandemRadialCalls
    from tandem_wan.wan.errors import UserError

    TandemRadialCalls.hidden = SimpleNamespace(unique_id=None)
    (high, _), (low, _) = (rig.patched(model) for model in pair.values())
    latent = {"samples": rig.sample(high)}
    out, report = TandemRadialCalls.execute(latent, high, low).args
    assert torch.equal(out["samples"], latent["samples"])
    assert (
        "16 calls of self-attention: 9 sparse, 4 dense in dense steps, 3 dense in dense blocks."
        in report
    )
    assert "low noise: " in report and "Nothing has been sampled with this model yet." in report
    assert "9 x 4 x 4 (144 tokens): density 0." in report and "Self-attention took" in report
    with pytest.raises(UserError, match="model carries no radial attention"):
        TandemRadialCalls.execute(latent, pair["high_noise"])


def test_a_prompt_of_two_samplers_is_one_report(radial_host, pair):
    """Core's own KSampler (Advanced) for both halves of a run, and the report behind them."""
    size = (rig.FRAMES, 8, 8)
    positive, negative = (_given(radial_host, cond) for cond in rig.conditioning(size))
    half = {"add_noise": "enable", "noise_seed": 1, "steps": 4, "cfg": 1.0, "sampler_name": "euler",
            "scheduler": "simple", "start_at_step": 0, "end_at_step": 2, "return_with_leftover_noise": "enable",
            "model": ["radial", 0], "positive": ["positive", 0], "negative": ["negative", 0],
            "latent_image": ["latent", 0]}  # fmt: skip
    other = {
        **half,
        "add_noise": "disable",
        "start_at_step": 2,
        "end_at_step": 4,
        "latent_image": ["half", 0],
    }
    prompt = {
        "model": _given(radial_host, pair["high_noise"]),
        "positive": positive,
        "negative": negative,
        "latent": _given(radial_host, {"samples": torch.zeros(1, 16, *size)}),
        "radial": radial_host.node(
            "TandemRadialAttention", model=["model", 0], preset="balanced", dense_layers="0"
        ),
        "half": radial_host.node("KSamplerAdvanced", **half),
        "other": radial_host.node("KSamplerAdvanced", **other),
    }
    latent, report = radial_host.run(
        prompt, "TandemRadialCalls", latent=["other", 0], model=["radial", 0]
    )
    assert latent["samples"].shape == (1, 16, *size)
    assert (
        "16 calls of self-attention: 6 sparse, 8 dense in dense steps, 2 dense in dense blocks."
        in report
    )


def test_samplers_of_one_prompt_are_counted_together(comfy):
    """Two halves of a run are one report; another prompt begins a new one."""
    from tandem_wan.nodes.host.radial_record import RadialRecord

    record = RadialRecord()
    for prompt, calls in (("a", 1), ("a", 2), ("b", 1), (None, 1), (None, 1)):
        record.begin(prompt)
        record.count("sparse")
        assert record.calls["sparse"] == calls, prompt


def _given(host, value):
    """Tensors have no truth, by which the host's own helper would look for them."""
    host.given.append(value)
    return host.node("TestGive", index=len(host.given) - 1)


def _report(model, **inputs):
    from tandem_wan.nodes.host.radial_report import patch_report

    return patch_report(*rig.patched(model, **inputs))


@pytest.fixture
def radial_host(host, monkeypatch):
    """The host with our nodes in it; what it refuses, as text."""
    from tandem_wan.nodes.radial import TandemRadialAttention, TandemRadialCalls

    import nodes

    for node in (TandemRadialAttention, TandemRadialCalls):
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, node.GET_SCHEMA().node_id, node)

    def refused_node(class_type, **inputs):
        prompt = {
            "given": host.given and host.node("TestGive", index=0),
            "node": host.node(class_type, **inputs),
            "keep": host.node("TestKeep", value=["node", 1], place=1),
        }
        valid, _, _, errors = host._validate(prompt)
        assert not valid
        return " ".join(f"{e['message']} {e['details']}" for e in errors["node"]["errors"])

    host.refused_node = refused_node
    return host
