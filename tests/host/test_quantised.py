"""Quantised experts, in both forms in which public files come: trained, parked, sampled, stopped and resumed."""

from __future__ import annotations

import json

import pytest
import torch
from tandem_wan.dev import runs
from tandem_wan.dev.quantised import FORMS, quantise
from tandem_wan.dev.testing import number_of, sampled, training_graph

pytestmark = [pytest.mark.host, pytest.mark.slow]


@pytest.fixture(scope="module", params=FORMS)
def form(request, base):
    """One form's pair of experts, beside the others in the host's folder."""
    folder = base / "models" / "diffusion_models"
    for role in ("high_noise", "low_noise"):
        source = folder / f"tiny_wan2.2_i2v_{role}.safetensors"
        quantise(source, folder / f"{request.param}_{role}.safetensors", request.param)
    return request.param


def test_a_quantised_pair_trains_parks_samples_and_goes_on(client, base, form):
    def quantised(graph, high, low):
        for link, role in ((high, "high_noise"), (low, "low_noise")):
            graph[link[0]]["inputs"]["unet_name"] = f"{form}_{role}.safetensors"
        return high, low

    def training(name):
        graph = training_graph(name)
        for role, title in (
            ("high", "High-noise expert: runs first"),
            ("low", "Low-noise expert: runs second"),
        ):
            graph[number_of(graph, title)]["inputs"]["unet_name"] = (
                f"{form}_{role}_noise.safetensors"
            )
        return graph

    assert "QuantizedTensor" in weights(client, form), "the host has not quantised it"
    reference = sampled(client, base, f"{form}_reference", quantised)
    client.run(training(f"{form}_calm"))
    assert runs.wait_for_end(client, f"{form}_calm")["state"] == "done"
    calm = runs.losses(base, f"{form}_calm")
    # A quantised base is another base: what is learnt on it is its own.
    assert len(calm) == 30 and sum(loss for *_, loss, _ in calm[-6:]) < sum(
        l for *_, l, _ in calm[:6]
    )

    name = f"{form}_disturbed"
    client.run(training(name))
    for _ in range(3):
        before = runs.wait_until(client, name, lambda j: j["step"] > 0)["step"]
        assert torch.equal(sampled(client, base, f"{form}_meanwhile", quantised), reference)
        runs.wait_until(client, name, lambda j, b=before: j["step"] > b)
    runs.ask(client, name, "stop")
    assert runs.wait_for_end(client, name)["step"] < 30
    assert torch.equal(sampled(client, base, f"{form}_stopped", quantised), reference)
    client.run(training(name))
    assert runs.wait_for_end(client, name)["state"] == "done"
    assert runs.losses(base, name) == calm
    assert torch.equal(sampled(client, base, f"{form}_after", quantised), reference)


def weights(client, form):
    """The kinds of tensor that the loaded high-noise expert holds."""
    graph = {
        "load": {
            "class_type": "UNETLoader",
            "inputs": {"unet_name": f"{form}_high_noise.safetensors", "weight_dtype": "default"},
            "_meta": {"title": "load"},
        },
        "probe": {
            "class_type": "TestProbe",
            "inputs": {"model": ["load", 0], "nonce": 1},
            "_meta": {"title": "probe"},
        },
    }
    return json.loads(client.run(graph)["outputs"]["probe"]["text"][0])["weights"]
