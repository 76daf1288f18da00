"""Somebody's config, pasted: what it means here, the verdict on it, and broken text. The configs are our own."""

from __future__ import annotations

import builtins
import contextlib
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.training.data.dataset import Counts
from tandem_wan.training.interop.documents import AI_TOOLKIT, DIFFUSION_PIPE, LONGEST, MUSUBI
from tandem_wan.training.interop.names import their_optimizer
from tandem_wan.training.interop.plans import import_plan
from tandem_wan.training.interop.report import import_report
from tandem_wan.training.plans.settings import ExpertSettings
from tandem_wan.wan.errors import UserError

LONG_RUN = """
output_dir = '/runs/mermaid'
dataset = 'mermaid.toml'
epochs = 250
micro_batch_size_per_gpu = 1
gradient_accumulation_steps = 1
warmup_steps = 20
save_every_n_epochs = 25
activation_checkpointing = true
[model]
type = 'wan'
ckpt_path = '/models/Wan2.1-T2V-14B'
timestep_sample_method = 'logit_normal'
[adapter]
type = 'lora'
rank = 32
[optimizer]
type = 'adamw8bitkahan'
lr = 3e-5
weight_decay = 0.01
spelling = 1
"""
FOLDER = """
resolutions = [512]
enable_ar_bucket = true
frame_buckets = [1, 33]
[[directory]]
path = '/clips/mermaid'
num_repeats = 1
"""
IMAGES = """
job: extension
config:
  name: style
  process:
    - type: sd_trainer
      network: {type: lora, linear: 16, linear_alpha: 8}
      save: {save_every: 250}
      datasets:
        - {folder_path: /pictures, num_repeats: 10, num_frames: 1, resolution: [512]}
      train:
        batch_size: 1
        steps: 1720
        lr: 1e-4
        timestep_type: linear
        optimizer: adamw8bit
        min_snr_gamma: 5
      model: {name_or_path: some/Wan2.2-T2V, arch: wan22_14b}
"""
COMMAND = """accelerate launch --mixed_precision fp16 src/musubi_tuner/wan_train_network.py \\
  --task i2v-A14B --dit "/models/wan low.safetensors" --dataset_config d.toml \\
  --min_timestep 0 --max_timestep 900 --learning_rate=2e-4 --network_dim 32 \\
  --optimizer_type bitsandbytes.optim.AdamW8bit --max_train_epochs 16 --no_such_thing 3
"""
VIDEOS = """
[general]
resolution = [960, 544]
batch_size = 2
enable_bucket = true
[[datasets]]
video_directory = "/v"
target_frames = [1, 25, 46]
frame_extraction = "uniform"
frame_sample = 4
"""


def test_250_epochs_of_16_clips_are_refused_as_12_and_a_half_times_too_long():
    found = import_plan([LONG_RUN, FOLDER], clips=16)
    assert (found.plan.steps, found.plan.preset) == (4000, "video effect")
    assert found.plan.optimizer.name == "adamw 8-bit kahan"
    assert found.plan.family == "single model" and found.plan.task == "t2v"
    assert found.plan.save_every == 400
    report = import_report(found, found.counts(16))
    assert "12.5 times" in report and "refused" in report
    assert report.startswith("diffusion-pipe: read as 'video effect', 4,000 steps at accumulate 1")
    assert "optimizer.spelling = 1" in report.split("Keys not known here")[1]
    assert (found.plan.high.warmup, found.plan.timesteps.distribution) == (20, "logit-normal")
    part = found.parts[0]
    assert (str(part.folder), part.width, part.height, part.frames) == (
        "/clips/mermaid", 512, 512, 33,
    )  # fmt: skip


def test_epochs_without_clips_say_so_with_the_factor():
    with pytest.raises(UserError, match=r"250 epochs, 12.5 times.*Set clips"):
        import_plan([LONG_RUN])


def test_the_dataset_itself_counts_before_the_number_of_clips():
    found = import_plan([LONG_RUN], clips=3, counts=Counts(16, 32.0, 0.0))
    assert found.plan.steps == 8000


def test_repeats_and_sizes_multiply_an_epoch():
    data = FOLDER.replace("num_repeats = 1", "num_repeats = 5").replace("[512]", "[512, 768]")
    found = import_plan([LONG_RUN, data], clips=16)
    assert found.plan.steps == 250 * 16 * 5 * 2
    assert [part.width for part in found.parts] == [512, 768]


def test_1720_steps_of_43_images_at_10_repeats_are_40_steps_per_image():
    found = import_plan([IMAGES], clips=43)
    assert (found.plan.steps, found.plan.preset) == (1720, "image style")
    assert found.plan.high == ExpertSettings(rate=1e-4)
    report = import_report(found, found.counts(43))
    assert "1,720 steps are 40 per image whatever the repeats are" in report
    assert "refused" not in report and "Warning" not in report
    assert "w(sigma)" in report and "alphas_cumprod" in report
    # The trainer takes the rank, and so must whoever repeats its run.
    assert found.plan.lora.alpha == 16.0
    assert "network.linear_alpha = 8" in report


def test_an_optimizer_that_is_not_here_is_replaced_with_a_word_and_a_sane_rate():
    text = IMAGES.replace("adamw8bit", "dadaptadam").replace("1e-4", "1.0")
    found = import_plan([text])
    assert found.plan.optimizer.name == "adamw" and found.plan.high.rate == 1e-4
    assert any("dadaptadam is not here: AdamW" in note for note in found.notes)


def test_prodigy_keeps_its_factor():
    found = import_plan([IMAGES.replace("adamw8bit", "prodigy").replace("1e-4", "1.0")])
    assert (found.plan.optimizer.name, found.plan.high.rate) == ("prodigy", 1.0)
    assert not any("not here" in note for note in found.notes)


@pytest.mark.parametrize(
    ("trainer", "name", "theirs"),
    [
        (AI_TOOLKIT, "prodigy", "prodigy"),
        (DIFFUSION_PIPE, "library:Lion", "Lion"),
        (MUSUBI, "library:Lion", "pytorch_optimizer.Lion"),
        (AI_TOOLKIT, "library:Lion", "adamw"),
    ],
)
def test_an_optimizer_is_called_as_the_trainer_calls_it(trainer, name, theirs):
    assert their_optimizer(trainer, name) == theirs


def test_a_command_line_for_one_expert_becomes_a_plan_for_it():
    found = import_plan([COMMAND, VIDEOS], clips=10)
    plan = found.plan
    assert (plan.train, plan.family, plan.boundary) == ("low", "wan 2.2 A14B", 0.9)
    assert (plan.lora.rank, plan.lora.alpha, plan.low.rate) == (32, 1.0, 2e-4)
    assert plan.optimizer.name == "adamw 8-bit"
    # Every file is shown at each of the three lengths.
    assert plan.batch == 2 and plan.steps == 16 * 10 * 3 / 2
    assert found.unknown == ("no_such_thing = 3 (text)",)
    assert [part.frames for part in found.parts] == [1, 25, 45]
    assert {(part.clip_mode, part.clips_per_file) for part in found.parts} == {("uniform", 4)}


def test_arguments_as_toml_under_any_table_are_the_same_plan():
    text = """
    [where]
    task = "i2v-A14B"
    dit = "x"
    [how]
    min_timestep = 0
    max_timestep = 900
    learning_rate = 2e-4
    network_dim = 32
    optimizer_type = "bitsandbytes.optim.AdamW8bit"
    max_train_epochs = 16
    """
    assert (
        import_plan([text, VIDEOS], clips=10).plan == import_plan([COMMAND, VIDEOS], clips=10).plan
    )


def test_a_joint_run_is_both_experts():
    text = (
        "--task t2v-A14B --dit l --dit_high_noise h --timestep_boundary 875 --max_train_steps 300"
    )
    found = import_plan([text])
    assert (found.plan.train, found.plan.family, found.plan.boundary) == (
        "both", "wan 2.2 A14B", 0.875,
    )  # fmt: skip
    assert any("one LoRA for both" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("epochs = 3\n[model]\ntype = 'wan\n[adapter]\nrank = 3", "TOML in line 3"),
        ("job: x\nconfig:\n  process: [\n  - a", "YAML in line"),
        (LONG_RUN.replace("rank = 32", "rank = many"), "TOML in line 16: \"rank = many\""),
        ("--task i2v-14B --dit 'unclosed", "quote that is never closed"),
        ("", "is empty"),
        ("# only a comment", "is empty"),
        ("hello there", "no config that is known"),
        (FOLDER, "no training config"),
        (LONG_RUN + "\n# file: other.yaml\n" + IMAGES, "ai-toolkit and diffusion-pipe"),
        (LONG_RUN.replace("250", "'x'"), "epochs in text is 'x'"),
        (LONG_RUN.replace("rank = 32", "rank = 0"), "adapter.rank in text is 0"),
        ("a" * (LONGEST + 1), "characters"),
        ("a: " + "[" * 2000, "nested"),
        ("- " * 5000, "nested"),
        ("config: &a\n  process: [*a, *a]", "nested"),
        ("\n".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9) if n else 1}]" for n in range(9)), "aliases"),
        ("a: &a {b: 1}\nc: {<<: *a}", "merges"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_short_error_in_three_parts(text, line):
    began = time.perf_counter()
    with pytest.raises(UserError) as caught:
        import_plan([text], clips=16)
    assert line.replace('"', "'") in str(caught.value).replace('"', "'")
    assert caught.value.can_be and caught.value.to_do
    assert len(str(caught.value)) < 800
    assert time.perf_counter() - began < 2


@settings(max_examples=80)
@given(
    base=st.sampled_from([LONG_RUN, IMAGES, COMMAND, VIDEOS, FOLDER]),
    at=st.floats(0, 1),
    cut=st.integers(0, 40),
    new=st.text(max_size=8) | st.sampled_from(["= [", "\n[x]\n", ": {", "--", "'", "nan", "1e999"]),
)
def test_damaged_text_gives_a_plan_or_a_user_error_and_nothing_else(base, at, cut, new):
    place = int(at * len(base))
    with contextlib.suppress(UserError):
        import_plan([base[:place] + new + base[place + cut :]], clips=4)


def test_nothing_that_a_config_names_is_opened(monkeypatch):
    def opened(*args, **_):
        raise AssertionError(f"opened {args}")

    for module, name in ((builtins, "open"), (os, "stat"), (os, "scandir"), (os, "listdir")):
        monkeypatch.setattr(module, name, opened)
    plans = [import_plan([text], clips=4).plan for text in (LONG_RUN, IMAGES, COMMAND)]
    monkeypatch.undo()
    assert len(plans) == 3
