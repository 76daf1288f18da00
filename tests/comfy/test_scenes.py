"""Scenes one after the other on one copy of the miniature, against each scene sampled alone."""

from __future__ import annotations

import json

import pytest
import torch

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(300)]
SIDE_PX, FRAMES, STEPS, SEED = 64, 5, 2, 7
RED, BLUE = "a red circle moves right", "a blue square moves up"
A = [{"lora": "scene_a.safetensors", "route": "both"}]
B = [{"lora": "scene_b.safetensors", "route": "both", "high": 0.5, "low": 0.5}]


def test_each_scene_is_what_it_would_be_alone(studio, alone, pictures):
    scenes = [{"prompt": RED, "rows": A}, {"prompt": BLUE, "rows": B, "seed": 3}, {"prompt": BLUE}]
    images, _ = studio(scenes, start_image=pictures)
    expected = [
        alone(RED, A, seed=SEED, start=pictures[:1]),
        alone(BLUE, B, seed=3, start=pictures[1:]),
        alone(BLUE, [], seed=SEED + 2, start=pictures[1:]),
    ]
    assert torch.equal(images, torch.cat(expected))
    assert not torch.equal(expected[1], expected[2])


def test_a_scene_that_continues_begins_with_the_last_frame_and_shows_it_once(
    studio, alone, pictures
):
    scenes = [{"prompt": RED, "rows": A}, {"prompt": BLUE, "frames": 9}]
    images, report = studio(scenes, start_image=pictures, continue_from="last frame")
    first = alone(RED, A, seed=SEED, start=pictures[:1])
    second = alone(BLUE, [], seed=SEED + 1, start=first[-1:], frames=9)
    assert torch.equal(images, torch.cat([first, second[1:]]))
    assert len(images) == FRAMES + 9 - 1
    assert "9 frames from the last frame of scene 1, seed 8" in report


def test_the_stack_comes_before_the_rows_of_every_scene(studio, alone, pictures, parsed):
    images, _ = studio([{"prompt": RED, "rows": B}], start_image=pictures, stack=parsed(A))
    assert torch.equal(images, alone(RED, A + B, seed=SEED, start=pictures[:1]))


def test_equal_stacks_are_put_on_once(studio, monkeypatch):
    from tandem_wan.nodes.host import scenes as host_scenes

    put_on, original = [], host_scenes.apply_stack

    def counted(stack, *args, **kwargs):
        put_on.append([row.lora for row in stack.rows])
        return original(stack, *args, **kwargs)

    monkeypatch.setattr(host_scenes, "apply_stack", counted)
    off = [{"lora": "scene_b.safetensors", "on": False}]
    rows = [A, B, A, A + off]
    _, report = studio([{"prompt": RED, "rows": r, "seed": 1} for r in rows])
    assert put_on == [["scene_a.safetensors"], ["scene_b.safetensors"]]
    assert report.count("LoRAs as in scene 1, not loaded again") == 2


def test_a_stack_is_dropped_after_the_last_scene_that_has_it(models, parsed):
    from tandem_wan.nodes.host.scenes import AppliedStacks

    stacks = AppliedStacks([parsed(rows) for rows in (A, B, A, B)], models, "error")
    kept = []
    for number in range(4):
        stacks.models(number)
        kept.append(len(stacks._applied))
    assert kept == [2, 2, 2, 1]


def test_the_base_is_neither_copied_nor_changed(studio, models):
    networks = [model.model.diffusion_model for model in models.values()]
    before = [{k: (p.data_ptr(), p.clone()) for k, p in n.named_parameters()} for n in networks]
    studio([{"prompt": RED, "rows": A}, {"prompt": BLUE, "rows": B}])
    for network, weights in zip(networks, before, strict=True):
        for name, parameter in network.named_parameters():
            address, value = weights[name]
            assert parameter.data_ptr() == address and torch.equal(parameter, value)
    assert not any(model.injections or model.patches for model in models.values())


def test_one_model_samples_scenes_too(models, studio, alone, pictures):
    images, report = studio([{"prompt": RED, "rows": A}], start_image=pictures, model_low=None)
    single = {"single": models["high_noise"]}
    assert torch.equal(images, alone(RED, A, seed=SEED, start=pictures[:1], models=single))
    assert report.startswith("2 steps with one model")


def test_cancel_between_scenes_ends_the_node(studio, comfy):
    from comfy import model_management

    told = []

    def tell(text):
        told.append(text)
        if text.startswith("Scene 2"):
            model_management.interrupt_current_processing()

    with pytest.raises(model_management.InterruptProcessingException):
        studio([{"prompt": RED}, {"prompt": BLUE}, {"prompt": RED}], tell=tell)
    assert told[2:] == [f"Scene 1 of 3: {RED}", f"Scene 2 of 3: {BLUE}"]
    assert not model_management.processing_interrupted()


def test_a_scene_whose_lora_does_not_fit_is_named_before_anything_is_sampled(studio, loras):
    from tandem_wan.wan.errors import UserError
    from tandem_wan.wan.lora.files import write_safetensors

    write_safetensors(
        loras / "other.safetensors",
        {
            "diffusion_model.blocks.0.self_attn.q.lora_A.weight": torch.zeros(2, 9),
            "diffusion_model.blocks.0.self_attn.q.lora_B.weight": torch.zeros(9, 2),
        },
        {},
    )
    told, scenes = [], [{"prompt": RED}, {"prompt": RED, "rows": [{"lora": "other.safetensors"}]}]
    with pytest.raises(UserError, match=r"^Scene 2: "):
        studio(scenes, tell=told.append)
    assert not any(text.startswith("Scene") for text in told)


@pytest.mark.parametrize(
    ("scenes", "message"),
    [
        ([{"prompt": RED}, {"prompt": BLUE, "rows": [*A, {"lora": "nowhere.safetensors"}]}],
         "Scene 2: Row 2: The LoRA 'nowhere.safetensors'"),
        ([{"prompt": RED, "rows": [{"lora": "nowhere.safetensors", "on": False}]}], None),
        ([{"prompt": RED, "rows": [{"lora": "x", "high": "strong"}]}], "Scene 1: Row 1: high"),
        ([{"promt": RED}], "Scene 1 has promt."),
    ],
)  # fmt: skip
def test_a_bad_scene_is_refused_when_it_is_queued(loras, scenes, message):
    from tandem_wan.nodes.scenes import TandemScenes

    answer = TandemScenes.validate_inputs(scenes=json.dumps(scenes))
    assert answer is True if message is None else answer.startswith(message)


def test_sizes_that_wan_does_not_take_are_refused_when_they_are_queued(comfy):
    from tandem_wan.nodes.scenes import TandemScenes

    assert "frames is 80" in TandemScenes.validate_inputs(frames=80)
    assert "width is 100" in TandemScenes.validate_inputs(width=100)
    assert TandemScenes.validate_inputs(scenes=None, width=None) is True


def test_a_text_to_video_model_cannot_continue_a_scene(comfy, studio, shipped):
    from tandem_wan.wan.errors import UserError

    path = shipped.high_noise.with_name("mini_wan2.2_t2v.safetensors")
    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(str(path))
    with pytest.raises(UserError, match="text-to-video"):
        studio([{"prompt": RED}], model_high=model, model_low=None, continue_from="last frame")
    images, _ = studio([{"prompt": RED}], model_high=model, model_low=None)
    assert images.shape == (FRAMES, SIDE_PX, SIDE_PX, 3)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    from tandem_wan.wan.miniature.family import install_family

    return install_family(tmp_path_factory.mktemp("shipped"))


@pytest.fixture(scope="module")
def models(comfy, shipped):
    with torch.inference_mode():
        return {
            "high_noise": comfy.sd.load_diffusion_model(str(shipped.high_noise)),
            "low_noise": comfy.sd.load_diffusion_model(str(shipped.low_noise)),
        }


@pytest.fixture(scope="module")
def encoders(comfy, shipped):
    import comfy.utils
    from tandem_wan.nodes.host.text_encoder import load_text_encoder

    with torch.inference_mode():
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(shipped.vae)))
        return load_text_encoder(shipped.text_encoder), vae


@pytest.fixture(scope="module")
def loras(comfy, models, tmp_path_factory):
    """Two LoRAs for the attention of every block, each strong enough to be seen."""
    import folder_paths
    from tandem_wan.wan.lora.files import write_safetensors

    folder = tmp_path_factory.mktemp("loras")
    folder_paths.add_model_folder_path("loras", str(folder))
    network = models["high_noise"].model.diffusion_model
    for seed, name in enumerate(("scene_a", "scene_b")):
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for layer, module in network.named_modules():
            if layer.endswith(("self_attn.q", "self_attn.v")):
                key = f"diffusion_model.{layer}"
                outputs, inputs = module.weight.shape
                tensors[f"{key}.lora_A.weight"] = torch.randn(4, inputs, generator=generator) * 0.1
                tensors[f"{key}.lora_B.weight"] = torch.randn(outputs, 4, generator=generator) * 0.1
        write_safetensors(folder / f"{name}.safetensors", tensors, {})
    folder_paths.filename_list_cache.pop("loras", None)
    yield folder
    folder_paths.folder_names_and_paths["loras"][0].remove(str(folder))
    folder_paths.filename_list_cache.pop("loras", None)


@pytest.fixture(scope="module")
def pictures():
    """Two first frames."""
    return torch.rand(2, SIDE_PX, SIDE_PX, 3, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def parsed(loras):
    from tandem_wan.wan.lora.stack import LoraStack, parse_rows

    return lambda rows: LoraStack(parse_rows(json.dumps(rows)))


@pytest.fixture
def studio(models, encoders, loras, monkeypatch):
    """The node, run on the miniature; gives its images and report."""
    from tandem_wan.nodes import scenes as node

    def run(scenes, *, tell=None, **inputs):
        monkeypatch.setattr(node, "node_text", lambda _, text: tell(text) if tell else None)
        clip, vae = encoders
        inputs = {
            "model_high": models["high_noise"],
            "model_low": models["low_noise"],
            "continue_from": "own image",
            **inputs,
        }
        with torch.inference_mode():
            out = node.TandemScenes.PREPARE_CLASS_CLONE(None).execute(
                clip=clip,
                vae=vae,
                scenes=json.dumps(scenes),
                negative="",
                width=SIDE_PX,
                height=SIDE_PX,
                frames=FRAMES,
                steps=STEPS,
                cfg=1.5,
                shift=5.0,
                seed=SEED,
                **inputs,
            )
        return out.result

    return run


@pytest.fixture
def alone(models, encoders, parsed):
    """A scene by the nodes that a graph would have: stack, text, image to video, sampler, decoder."""
    from comfy_extras.nodes_wan import WanImageToVideo
    from tandem_wan.nodes.host.sampling import Request, make_schedule, sample_pair, with_shift
    from tandem_wan.nodes.host.stack import apply_stack

    import nodes

    both, (clip, vae) = models, encoders

    def run(prompt, rows, *, seed, start, frames=FRAMES, models=both):
        with torch.inference_mode():
            patched, _ = apply_stack(parsed(rows), models, "error")
            high, *low = [with_shift(model, 5.0) for model in patched.values()]
            schedule = make_schedule(
                high, steps=STEPS, scheduler="simple", sampler_name="euler", denoise=1, boundary=0
            )
            texts = [nodes.CLIPTextEncode().encode(clip, text)[0] for text in (prompt, "")]
            began = WanImageToVideo.execute(
                *texts, vae, SIDE_PX, SIDE_PX, frames, 1, start_image=start
            ).result
            request = Request(
                positive=began[0],
                negative=began[1],
                latent=began[2],
                seed=seed,
                cfg=1.5,
                cfg_low=0,
                sampler_name="euler",
            )
            latent = sample_pair(high, low[0] if low else None, schedule, request)
            return nodes.VAEDecode().decode(vae, latent)[0]

    return run
