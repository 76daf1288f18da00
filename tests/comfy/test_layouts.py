"""One pair of LoRAs in every layout: all of its modules load, and the clip is the one that core makes of it."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tandem_wan.dev import lora_layouts
from tandem_wan.dev.lora_layouts import FURTHER, TABLE, Expert
from tandem_wan.wan.lora.files import write_safetensors
from tandem_wan.wan.lora.report import WRITERS
from tandem_wan.wan.lora.stack import LoraStack, Row

pytestmark = pytest.mark.comfy
ROLES = ("high_noise", "low_noise")
STRENGTHS = {"high_noise": 0.8, "low_noise": 1.1}
MODULES = 20
"""Linear layers of two blocks."""
TOLERANCE = 1e-5
"""Of the largest change that the LoRAs make to the clip. Core rounds W + D to float32 and multiplies once; beside the
weights two products are rounded and added: the last digits differ, 1e-6 after three steps."""


def test_the_table_has_every_published_layout_once():
    assert len(TABLE) == 24
    assert len({layout.name for layout in (*TABLE, *FURTHER)}) == 24 + len(FURTHER)


@pytest.mark.parametrize("mode", ["inject", "merge"])
@pytest.mark.parametrize("layout", (*TABLE, *FURTHER), ids=lambda layout: layout.name)
def test_a_layout_loads_whole_and_gives_cores_clip(world, layout, mode):
    patched, report = world.applied(layout, mode)
    modules = len(world.deltas(layout, world.experts["high_noise"]))
    assert modules >= MODULES
    assert [(f.matched, f.total, f.groups) for f in report.files] == [(modules, modules, ())] * 2
    if layout in TABLE:
        assert {file.layout for file in report.files} <= WRITERS.keys()
    expected, plain = world.clip_of_core(layout), world.plain
    effect = (expected - plain).abs().max()
    error = (world.sample(patched) - expected).abs().max()
    assert error <= TOLERANCE * effect


def test_core_reads_the_native_layout_as_the_change_that_was_meant(world):
    """The reference is what it should be: weights of the checkpoints with the products written into them."""
    meant = world.clip_of_weights(TABLE[0])
    effect = (meant - world.plain).abs().max()
    assert effect > 0.1 * world.plain.abs().max(), "the LoRAs change the clip"
    assert (world.native - meant).abs().max() <= TOLERANCE * effect


class World:
    """Two experts of two blocks, a LoRA for each, and clips of three steps."""

    def __init__(self, comfy, folder, loras_folder):
        from tandem_wan.wan.miniature.layouts import TransformerSize
        from tandem_wan.wan.miniature.random_family import write_family

        family = write_family(folder, transformer=TransformerSize(layers=2))
        self.folder, self.loras_folder, self._comfy = folder, loras_folder, comfy
        self.files = {role: getattr(family, role) for role in ROLES}
        self.experts = {role: self._expert(seed, role) for seed, role in enumerate(ROLES)}
        self.models = {role: self._load(path) for role, path in self.files.items()}
        self.plain = self.sample(self.models)
        self.native = self._native()

    def applied(self, layout, mode):
        """The pair with the layout's file or files, and the report."""
        from tandem_wan.nodes.host.stack import apply_stack

        stem = self.loras_folder / layout.name.replace(" ", "_").replace(",", "")
        if layout.both:
            files = [layout.write(stem, [self.experts[role] for role in ROLES])]
        else:
            files = [
                layout.write(stem.with_name(f"{stem.name}_{r}"), [self.experts[r]]) for r in ROLES
            ]
        lora, low = [*(f.relative_to(self.loras_folder).as_posix() for f in files), None][:2]
        row = Row(lora=lora, lora_low=low, high=STRENGTHS["high_noise"], low=STRENGTHS["low_noise"])
        return apply_stack(LoraStack((row,)), self.models, "error", mode)

    def clip_of_core(self, layout):
        """Core's clip of the native layout; with other changes than the LoRA's, that of changed weights."""
        if layout.deltas is None:
            return self.native
        return self.clip_of_weights(layout)

    def clip_of_weights(self, layout):
        """The clip of checkpoints into which the changes are written."""
        models = {}
        for role, path in self.files.items():
            weights = load_file(path)
            for name, delta in self.deltas(layout, self.experts[role]).items():
                weights[name] += STRENGTHS[role] * delta.detach()
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
            changed = self.folder / f"changed_{role}.safetensors"
            write_safetensors(changed, weights, metadata)
            models[role] = self._load(changed)
        return self.sample(models)

    def deltas(self, layout, expert):
        """What the layout's file is to change, by parameter."""
        products = {f"{layer}.weight": f.delta for layer, f in expert.lora.items()}
        return products | (layout.deltas(expert) if layout.deltas else {})

    def sample(self, models):
        """Latents (1, 16, 3, 8, 8) of two steps with the high-noise expert and one with the other."""
        from tandem_wan.nodes.host.sampling import Request, make_schedule, sample_pair, with_shift

        generator = torch.Generator().manual_seed(2)
        context = torch.randn(1, 8, 64, generator=generator)
        image = torch.randn(1, 16, 3, 8, 8, generator=generator)
        values = {"concat_latent_image": image, "concat_mask": torch.ones(1, 1, 3, 8, 8)}
        with torch.inference_mode():
            high, low = (with_shift(models[role], 5.0) for role in ROLES)
            schedule = make_schedule(
                high, steps=3, scheduler="simple", sampler_name="euler", denoise=1.0, boundary=0.9
            )
            assert (schedule.high_steps, schedule.low_steps) == (2, 1)
            request = Request(
                positive=[[context, values]],
                negative=[[context, values]],
                latent={"samples": torch.zeros(1, 16, 3, 8, 8)},
                seed=11,
                cfg=1.0,
                cfg_low=0.0,
                sampler_name="euler",
            )
            return sample_pair(high, low, schedule, request)["samples"].clone()

    def _native(self):
        import nodes

        models = {}
        for role in ROLES:
            write = lora_layouts.built("diffusion_model.")
            file = write(self.loras_folder / f"native_{role}", [self.experts[role]])
            with torch.inference_mode():
                (models[role],) = nodes.LoraLoaderModelOnly().load_lora_model_only(
                    self.models[role], file.name, STRENGTHS[role]
                )
        return self.sample(models)

    def _expert(self, seed, role):
        weights = {
            name.removesuffix(".weight"): weight
            for name, weight in load_file(self.files[role]).items()
            if name.startswith("blocks.") and weight.ndim == 2
        }
        return Expert(role, lora_layouts.random_lora(seed, weights), weights)

    def _load(self, path):
        with torch.inference_mode():
            return self._comfy.sd.load_diffusion_model(str(path))


@pytest.fixture(scope="module")
def world(comfy, tmp_path_factory):
    import folder_paths

    folder = tmp_path_factory.mktemp("layouts")
    loras = folder / "loras"
    loras.mkdir()
    listed = folder_paths.folder_names_and_paths
    before = listed["loras"]
    listed["loras"] = ([str(loras)], before[1])
    yield World(comfy, folder, loras)
    listed["loras"] = before
