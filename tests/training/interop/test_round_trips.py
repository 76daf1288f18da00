"""A plan that goes to another trainer's format comes back as it was, and a key that was edited wins."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.dev.plan_strategies import plans
from tandem_wan.training.data.dataset import CLIP_MODES, FITS, MEDIA, Counts, DatasetSettings
from tandem_wan.training.interop.documents import TRAINERS
from tandem_wan.training.interop.plans import export_plan, import_plan
from tandem_wan.training.plans.plan import TrainingPlan
from tandem_wan.training.plans.presets import PRESETS
from tandem_wan.training.plans.settings import ExpertSettings, LoraSettings

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
parts = st.builds(
    DatasetSettings,
    folder=words.map(lambda text: Path("/data") / f"a{text}z"),
    media=st.sampled_from(MEDIA),
    trigger=words,
    width=st.integers(1, 300).map(lambda n: 16 * n) | st.integers(16, 2000),
    height=st.integers(1, 300).map(lambda n: 16 * n),
    frames=st.integers(0, 30).map(lambda n: 4 * n + 1) | st.integers(1, 100),
    fps=st.floats(1, 60),
    clip_mode=st.sampled_from(CLIP_MODES),
    clips_per_file=st.integers(0, 5),
    fit=st.sampled_from(FITS),
    flips=st.booleans(),
    crops=st.integers(1, 3),
    repeats=st.floats(0.1, 20) | st.integers(1, 9).map(float),
    regularisation=st.booleans(),
)
BOTH = TrainingPlan(steps=400, save_every=50, accumulate=2)
FOLDER = DatasetSettings(folder=Path("/data/clips"))


def preset_plan(name):
    preset = PRESETS[name]
    return TrainingPlan(
        preset=name,
        steps=preset.steps or 320,
        batch=preset.batch,
        accumulate=preset.accumulate,
        lora=preset.lora,
        optimizer=preset.optimizer,
        high=preset.high,
        low=preset.low,
        notes=(preset.evidence,),
    )


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_comes_back(trainer, name):
    plan = preset_plan(name)
    back = import_plan([export_plan(plan, trainer, [FOLDER], Counts(16, 16.0, 0.0)).text()])
    assert back.plan == plan
    assert back.parts == (FOLDER,)
    assert back.trainer == trainer
    assert not back.unknown


@pytest.mark.parametrize("trainer", TRAINERS)
@settings(max_examples=40)
@given(plan=plans(400), folders=st.lists(parts, max_size=3))
def test_any_plan_and_any_folders_come_back(trainer, plan, folders):
    export = export_plan(plan, trainer, folders)
    back = import_plan([export.text()])
    assert back.plan == plan
    assert list(back.parts) == folders
    assert not back.unknown
    # The main config alone says what it can: nothing is an error.
    data = list(export.files)[-1]
    mains = {name: text for name, text in export.files.items() if name != data} or export.files
    alone = import_plan(["\n".join(f"# file: {name}\n{text}" for name, text in mains.items())])
    assert alone.plan.lora == plan.lora


@pytest.mark.parametrize("trainer", TRAINERS)
def test_without_a_dataset_a_placeholder_stands_which_is_no_folder(trainer):
    text = export_plan(BOTH, trainer).text()
    assert "/path/to/clips" in text
    assert import_plan([text]).parts == ()


EDITS = {
    "diffusion-pipe": [
        (r"max_steps = \d+", "max_steps = 500", "steps", 1000),
        (r"lr = \S+", "lr = 0.0007", "high", ExpertSettings(rate=0.0007)),
        (r"rank = \d+", "rank = 8", "lora", LoraSettings(rank=8, alpha=8.0)),
        (r"shift = \S+", "shift = 3.0", "shift", 3.0),
        (r"(min_t|max_t) = 0\.9\b", r"\1 = 0.875", "boundary", 0.875),
        (r"uncond_fraction = \S+", "uncond_fraction = 0.1", "caption_dropout", 0.1),
        (r"save_every_n_steps = \d+", "save_every_n_steps = 9", "save_every", 18),
        (r"gradient_accumulation_steps = \d+", "gradient_accumulation_steps = 7", "accumulate", 7),
    ],
    "ai-toolkit": [
        (r"\bsteps: \d+", "steps: 1000", "steps", 1000),
        (r"\blr: \S+", "lr: 7e-4", "low", ExpertSettings(rate=0.0007)),
        (r"linear: \d+", "linear: 8", "lora", LoraSettings(rank=8, alpha=8.0)),
        (r"timestep_type: \S+", "timestep_type: linear", "shift", 1.0),
        (r"switch_boundary_every: \d+", "switch_boundary_every: 8", "swap_every", 4),
        (r"caption_dropout_rate: \S+", "caption_dropout_rate: 0.1", "caption_dropout", 0.1),
        (r"train_low_noise: true", "train_low_noise: false", "train", "high"),
        (r"training_seed: \d+", "training_seed: 9", "seed", 9),
    ],
    "musubi-tuner": [
        (r"--max_train_steps \d+", "--max_train_steps 500", "steps", 1000),
        (r"--learning_rate \S+", "--learning_rate 7e-4", "high", ExpertSettings(rate=0.0007)),
        (r"--network_dim \d+", "--network_dim 8", "lora", LoraSettings(rank=8, alpha=48.0)),
        (r"--discrete_flow_shift \S+", "--discrete_flow_shift=3", "shift", 3.0),
        (r"(--m\w+_timestep) 900", r"\1 875", "boundary", 0.875),
        (r"batch_size = \d+", "batch_size = 3", "batch", 3),
    ],
}


@pytest.mark.parametrize(
    ("trainer", "edit"), [(trainer, edit) for trainer, edits in EDITS.items() for edit in edits]
)
def test_an_edited_key_wins_over_the_comment(trainer, edit):
    pattern, new, name, expected = edit
    # Values that no key of theirs holds exactly, so that the comment has something to say of each.
    plan = replace(BOTH, lora=LoraSettings(alpha=48.0), boundary=0.9)
    text, edits = re.subn(pattern, new, export_plan(plan, trainer, [FOLDER]).text())
    assert edits
    assert getattr(import_plan([text]).plan, name) == expected


AWKWARD = [
    "/data/wan_train_network/clips",
    "/data/x --dit y",
    "/path/to/clips",
    "/data/" + "- " * 40,
    "/data/" + "[a" * 40,
    "/data/a = b [c" + " x" * 60,
    "/data/a\n```\n# file: b",
    "/data/a\n# tandem: {}",
    'C:\\new\\table "q" it\'s',
]


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("folder", AWKWARD)
def test_a_folder_of_any_name_comes_back(trainer, folder):
    wanted = [DatasetSettings(folder=Path(folder)), DatasetSettings(folder=Path(folder), frames=17)]
    back = import_plan([export_plan(BOTH, trainer, wanted).text()])
    assert (back.plan, list(back.parts)) == (BOTH, wanted)


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("trigger", ["<<", "=", "*a", "~", "a\n```\nb", "1_000", "12:30:00"])
def test_a_trigger_that_means_something_in_yaml_comes_back(trainer, trigger):
    wanted = [DatasetSettings(folder=Path("/data/clips"), trigger=trigger)]
    assert list(import_plan([export_plan(BOTH, trainer, wanted).text()]).parts) == wanted


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("seed", [-5, 2**32, 2**53 + 1, 2**64 + 3])
def test_any_seed_comes_back_and_the_key_is_one_that_the_trainer_takes(trainer, seed):
    text = export_plan(replace(BOTH, seed=seed), trainer).text()
    assert import_plan([text]).plan.seed == seed
    keys = re.findall(r"seed:? (-?\d+)", re.sub("# tandem.*", "", text))
    assert {int(key) for key in keys} <= {seed % 2**32}


@pytest.mark.parametrize(
    "text", ["--dit x --seed %d", "job: x\nconfig:\n  process: [{training_seed: %d}]"]
)
@pytest.mark.parametrize("seed", [-5, 2**53 + 1])
def test_a_foreign_seed_is_not_rounded(text, seed):
    assert import_plan([text % seed]).plan.seed == seed


@pytest.mark.parametrize("trainer", TRAINERS)
def test_more_folders_than_import_reads_are_written_and_the_report_says_so(trainer):
    folders = [DatasetSettings(folder=Path(f"/data/{'x' * 200}/{n}")) for n in range(200)]
    export = export_plan(BOTH, trainer, folders)
    assert all(str(part.folder) in export.text() for part in folders)
    assert "Import Plan does not read this text back: The pasted text has" in export.report()
    assert "does not read" not in export_plan(BOTH, trainer, folders[:3]).report()


def test_a_comment_for_a_rounded_value_ends_with_the_key_it_stood_for():
    plan = replace(BOTH, boundary=0.90004)
    text = export_plan(plan, "musubi-tuner").text()
    assert import_plan([text]).plan.boundary == 0.90004
    edited = text.replace("_timestep 900", "_timestep 880")
    assert import_plan([edited]).plan.boundary == 0.88


def test_a_damaged_comment_is_said_and_the_keys_still_count():
    text = export_plan(BOTH, "diffusion-pipe").text()
    broken = import_plan([re.sub(r'# tandem: \{"plan"', '# tandem: {"plan', text)])
    assert any("damaged" in note for note in broken.notes)
    assert broken.plan.steps == BOTH.steps
    strange = import_plan([text.replace('"plan": {', '"plan": {"nonsense": 1, ')])
    assert strange.plan == BOTH
    assert any("nonsense" in note for note in strange.notes)
