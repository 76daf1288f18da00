"""Which two files are a pair: golden names, metadata, folders, and that it is the same from both sides."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tandem_wan.wan.lora.pairing import PairFinder, find_pair

# Names of public files, or in their manner; the third word says whether the two are a pair.
GOLDEN = [
    ("style_hero", "style_light", "none"),
    ("highway", "lowway", "none"),
    ("dance-HIGH-v1", "dance-LOW-v2", "none"),
    ("dance_high_noise", "dance_low_noise_000001000", "none"),
    ("wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise", "wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise", "pair"),
    ("Wan22-I2V-A14B-HIGH-rCM6_0_lora_rank_64_bf16", "Wan22-I2V-A14B-LOW-rCM1_0_lora_rank_64_bf16", "ask"),
    ("wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise", "wan2.2_t2v_lightx2v_4steps_lora_v1_low_noise", "none"),
    ("wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise", "wan2.2_t2v_lightx2v_4steps_lora_v1_low_noise", "none"),
    ("wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step_1022",
     "wan2.2_i2v_A14b_low_noise_lora_rank64_lightx2v_4step_1022", "pair"),
    ("wan2.2_t2v_A14b_high_noise_lora_rank64_lightx2v_4step_1217",
     "wan2.2_t2v_A14b_low_noise_lora_rank64_lightx2v_4step_1217", "pair"),
    ("wan2.2_t2v_A14b_high_noise_lora_rank64_lightx2v_4step_1217",
     "wan2.2_t2v_A14b_low_noise_lora_rank64_lightx2v_4step_1022", "none"),
    ("Wan2.2-Lightning_I2V-A14B-4steps-lora_HIGH_fp16", "Wan2.2-Lightning_I2V-A14B-4steps-lora_LOW_fp16", "pair"),
    ("Wan2.2-Lightning_T2V-v1.1-A14B-4steps-lora_HIGH_fp16",
     "Wan2.2-Lightning_T2V-A14B-4steps-lora_LOW_fp16", "none"),
    ("Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1.1/high_noise_model",
     "Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1.1/low_noise_model", "pair"),
    ("Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1.1/high_noise_model",
     "Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1/low_noise_model", "none"),
    ("Wan2.2-I2V-A14B-4steps-lora-rank64-Seko-V1_HN", "Wan2.2-I2V-A14B-4steps-lora-rank64-Seko-V1_LN", "pair"),
    ("Wan_2_2_I2V_A14B_HIGH_lightx2v_4step_lora_v1030_rank_64_bf16",
     "wan2.2_i2v_A14b_low_noise_lora_rank64_lightx2v_4step_1022", "none"),
    ("Wan2.2-Fun-A14B-InP-high-noise-HPS2.1", "Wan2.2-Fun-A14B-InP-low-noise-HPS2.1", "pair"),
    ("Wan2.2-Fun-A14B-InP-high-noise-HPS2.1", "Wan2.2-Fun-A14B-InP-low-noise-MPS", "none"),
    ("Wan2.2-Fun-A14B-InP-HIGH-HPS2.1_resized_dynamic_avg_rank_21_bf16",
     "Wan2.2-Fun-A14B-InP-LOW-HPS2.1_resized_dynamic_avg_rank_15_bf16", "ask"),
    ("SVI_v2_PRO_Wan2.2-I2V-A14B_HIGH_lora_rank_128_fp16", "SVI_v2_PRO_Wan2.2-I2V-A14B_LOW_lora_rank_128_fp16", "pair"),
    ("SVI_Wan2.2-I2V-A14B_high_noise_lora_v2.0_pro", "SVI_Wan2.2-I2V-A14B_low_noise_lora_v2.0_pro", "pair"),
    ("DR34ML4Y_I2V_14B_HIGH", "DR34ML4Y_I2V_14B_LOW", "pair"),
    ("DR34ML4Y_I2V_14B_HIGH", "DR34ML4Y_I2V_14B_LOW_V2", "none"),
    ("DR34ML4Y_I2V_14B_HIGH-20250908202326", "DR34ML4Y_I2V_14B_LOW-20250908202331", "none"),
    ("WAN-2.2-I2V-Orbit-HIGH-v1", "WAN-2.2-I2V-Orbit-LOW-v1", "pair"),
    ("wan2.2-i2v-high-orbit-v1.0", "wan2.2-i2v-low-orbit-v1.0", "pair"),
    ("Wan2.2_I2V_Camera_Orbit_High", "Wan2.2_I2V_Camera_Orbit_Low", "pair"),
    ("Wan22_Orbit_High_Noise", "Wan22_Orbit_High_Noise_v2", "none"),
    ("wan22-orbit-H-e8", "wan22-orbit-L-e8", "pair"),
    ("wan22-orbit-h-e8", "wan22-orbit-l-e8", "ask"),
    ("wan22-orbit-h-e8", "wan22-orbit-l-e10", "none"),
    ("wan22-orbit-i2v-20epoc-high-k3nk", "wan22-orbit-i2v-20epoc-low-k3nk", "ask"),
    ("wan22-orbit-i2v-34epoc-high-k3nk", "wan22-orbit-i2v-16epoc-low-k3nk", "none"),
    ("orbit_22_i2v_HIGH_e320", "orbit_22_i2v_LOW_e496", "none"),
    ("bounce_test_HighNoise-000005", "bounce_test_LowNoise-000005", "pair"),
    ("bounce_test_HighNoise-000005", "bounce_test_LowNoise-05", "none"),
    ("BounceHighWan2_2", "BounceLowWan2_2", "ask"),
    ("W22_Photoshoot_i2v_HN", "W22_Photoshoot_i2v_LN", "pair"),
    ("w22_photoshoot_i2v_hn", "w22_photoshoot_i2v_ln", "pair"),
    ("photoshoot high noise", "photoshoot low noise", "pair"),
    ("orbit_wan22_v1.0_000001500_high_noise", "orbit_wan22_v1.0_000001500_low_noise", "pair"),
    ("Orbit_High_Noise", "orbit_low_noise", "ask"),
    ("orbit_HN", "orbit_low_noise", "ask"),
    ("style_high_poly", "style_low_poly", "ask"),
    ("wan_i2v_high_poly_v1", "wan_i2v_low_poly_v1", "ask"),
    ("wan_HIGH_quality", "wan_LOW_quality", "ask"),
    ("high_to_low", "low_to_high", "none"),
    ("hero_high_quality_high_noise", "hero_high_quality_low_noise", "pair"),
    ("follow_high", "follow", "none"),
    ("high/dance", "low/dance", "pair"),
    ("wan/high_noise/dance", "wan/low_noise/dance", "pair"),
    ("wan/HighNoise/dance", "wan/LowNoise/waltz", "none"),
    ("high/dance_high", "low/dance_low", "pair"),
    ("a/dance_high_noise", "b/dance_low_noise", "none"),
    ("high_noise/dance_high", "low_noise/dance_high", "none"),
    ("highland/dance", "lowland/dance", "none"),
]  # fmt: skip


@pytest.mark.parametrize(("high", "low", "verdict"), GOLDEN)
def test_golden_names(high, low, verdict):
    high, low = f"{high}.safetensors", f"{low}.safetensors"
    for name, other in ((high, low), (low, high)):
        pairing = find_pair(name, [high, low, "style.safetensors"], _no_metadata)
        assert pairing.verdict == verdict
        assert pairing.candidates == ((other,) if verdict == "ask" else ())
        if verdict == "pair":
            assert (pairing.high, pairing.low) == (high, low)
            assert pairing.partner(name) == other
            assert pairing.side(name) == ("high" if name == high else "low")
        assert pairing.reason


def test_reward_loras_find_their_own_other_half_among_all():
    names = [
        f"Wan2.2-Fun-A14B-InP-{s}-noise-{r}.safetensors"
        for s in ("high", "low")
        for r in ("HPS2.1", "MPS")
    ]
    found = find_pair(names[1], names, _no_metadata)
    assert (found.high, found.low) == (names[1], names[3])


def test_the_reason_names_the_words_that_differ():
    pairing = find_pair("x-HN.safetensors", ["x-HN.safetensors", "x-LN.safetensors"], _no_metadata)
    assert pairing.reason == "their names differ in HN and LN alone"
    folders = ["high/x.safetensors", "low/x.safetensors"]
    assert (
        find_pair(folders[1], folders, _no_metadata).reason
        == "their folders differ in high and low alone"
    )


def test_windows_folders_are_folders():
    names = ["wan\\high\\x.safetensors", "wan\\low\\x.safetensors"]
    assert find_pair(names[0], names, _no_metadata).partner(names[0]) == names[1]


def test_only_safetensors_are_paired():
    names = ["x_high_noise.pt", "x_low_noise.pt"]
    assert find_pair(names[0], names, _no_metadata).verdict == "none"


def test_metadata_finds_a_pair_that_was_renamed():
    metadata = _trained(
        ("first.safetensors", "high_noise", 800), ("second.safetensors", "low_noise", 800)
    )
    pairing = find_pair("second.safetensors", metadata, metadata.get)
    assert (pairing.high, pairing.low) == ("first.safetensors", "second.safetensors")
    assert pairing.reason == "their metadata names one run, step 800"


def test_each_checkpoint_belongs_with_its_own_step_and_the_published_pair_with_itself():
    files = [
        (f"{folder}_{expert}.safetensors", expert, step)
        for folder, step in (("dance", 800), ("dance/step_000400/dance", 400), ("dance/step_000800/dance", 800))
        for expert in ("high_noise", "low_noise")
    ]  # fmt: skip
    metadata = _trained(*files)
    finder = PairFinder(metadata, metadata.get)
    for high, low in zip(files[::2], files[1::2], strict=True):
        assert finder.find(low[0]).partner(low[0]) == high[0]
        assert finder.find(high[0]).partner(high[0]) == low[0]


@pytest.mark.parametrize("beside", [(), (800,), (400, 800)], ids=str)
def test_the_published_experts_of_one_run_are_a_pair_each_at_its_own_best_step(beside):
    """Beside the checkpoints that they were copied from, all of which are in the lists too."""
    high, low = "dance_high_noise.safetensors", "dance_low_noise.safetensors"
    checkpoints = [
        (f"dance/step_{step:06}/dance_{step:06}_{expert}.safetensors", expert, step)
        for step in beside
        for expert in ("high_noise", "low_noise")
    ]
    metadata = _trained((high, "high_noise", 400), (low, "low_noise", 800), *checkpoints)
    finder = PairFinder(metadata, metadata.get)
    for name in (high, low):
        pairing = finder.find(name)
        assert (pairing.high, pairing.low) == (high, low)
        assert (
            pairing.reason
            == "their metadata names one run, high noise at step 400, low noise at 800"
        )
    for first, second in zip(checkpoints[::2], checkpoints[1::2], strict=True):
        assert finder.find(first[0]).partner(first[0]) == second[0]


def test_checkpoints_of_two_steps_are_no_pair():
    names = ["dance_000400_high_noise.safetensors", "dance_000800_low_noise.safetensors"]
    metadata = _trained((names[0], "high_noise", 400), (names[1], "low_noise", 800))
    assert {find_pair(name, names, metadata.get).verdict for name in names} == {"none"}


@pytest.mark.parametrize(
    ("high", "low"),
    [
        (("run", "high_noise", 800), ("other", "low_noise", 800)),
        (("run", "high_noise", 800), ("other", "low_noise", 400)),
        (("run", "high_noise", 800), ("run", "high_noise", 800)),
        (("run", "low_noise", 800), ("run", "high_noise", 400)),
        (None, ("run", "high_noise", 800)),
    ],
)
def test_metadata_can_deny_what_the_names_say(high, low):
    names = ["x_high_noise.safetensors", "x_low_noise.safetensors"]
    metadata = {n: _entry(*m) if m else {} for n, m in zip(names, (high, low), strict=True)}
    for name in names:
        pairing = find_pair(name, names, metadata.__getitem__)
        assert pairing.verdict == "none"
        assert "its metadata says another run, step or expert" in pairing.reason


def test_a_half_that_belongs_with_another_is_not_taken():
    metadata = _trained(
        ("x_low_noise.safetensors", "low_noise", 8), ("y.safetensors", "high_noise", 8)
    )
    metadata["x_high_noise.safetensors"] = {}
    pairing = find_pair("x_high_noise.safetensors", metadata, metadata.get)
    assert pairing.verdict == "none"
    assert pairing.reason == "x_low_noise.safetensors belongs with y.safetensors"


def test_two_copies_of_a_half_are_a_question():
    metadata = _trained(
        ("a.safetensors", "high_noise", 8), ("b.safetensors", "low_noise", 8), ("c.safetensors", "low_noise", 8)
    )  # fmt: skip
    asked = find_pair("a.safetensors", metadata, metadata.get)
    assert (asked.verdict, asked.candidates) == ("ask", ("b.safetensors", "c.safetensors"))
    assert find_pair("b.safetensors", metadata, metadata.get).candidates == ("a.safetensors",)


def test_headers_of_other_files_are_read_only_for_files_of_the_trainer():
    names = [
        "x_high_noise.safetensors",
        "x_low_noise.safetensors",
        *(f"{n}.safetensors" for n in range(9)),
    ]
    read = []
    find_pair(names[0], names, lambda name: read.append(name) or {})
    assert sorted(read) == names[:2]


def test_the_other_halves_of_a_series_are_no_candidates():
    halves = [f"hero{n}_{side}_noise.safetensors" for n in range(5) for side in ("high", "low")]
    names = [*halves, "hero9_high_noise.safetensors"]
    for name in halves:
        assert find_pair(name, names, _no_metadata).verdict == "pair"
    assert find_pair(names[-1], names, _no_metadata).verdict == "none"


def test_of_a_long_series_none_stands_out():
    names = [f"hero{n}_low_noise.safetensors" for n in range(2, 30)]
    pairing = find_pair(
        "hero1_high_noise.safetensors", [*names, "hero1_high_noise.safetensors"], _no_metadata
    )
    assert pairing.verdict == "none"
    assert (
        find_pair(
            "hero1_high_noise.safetensors", [names[0], "hero1_high_noise.safetensors"], _no_metadata
        ).verdict
        == "ask"
    )


WORDS = [
    "high",
    "low",
    "HIGH",
    "LOW",
    "High",
    "high_noise",
    "low_noise",
    "HN",
    "LN",
    "h",
    "l",
    "x",
    "v1",
    "v2",
    "poly",
]
NAMES = st.lists(
    st.builds(
        lambda folder, words, gap: folder + gap.join(words) + ".safetensors",
        st.sampled_from(["", "high/", "low/"]),
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
        st.sampled_from("_-"),
    ),
    min_size=2,
    max_size=12,
    unique=True,
)
MARKS = st.dictionaries(
    st.integers(0, 11),
    st.tuples(st.sampled_from(["r", "s"]), st.sampled_from(["high_noise", "low_noise"]), st.integers(1, 2)),
    max_size=6,
)  # fmt: skip


@settings(max_examples=300)
@given(NAMES, MARKS)
def test_a_pair_is_the_same_from_both_sides_and_no_file_is_in_two(names, marks):
    metadata = {name: _entry(*marks[i]) if i in marks else {} for i, name in enumerate(names)}
    found = {name: find_pair(name, names, metadata.__getitem__) for name in names}
    halves = [p.partner(name) for name, p in found.items() if p.verdict == "pair"]
    assert len(halves) == len(set(halves))
    for name, pairing in found.items():
        if pairing.verdict == "pair":
            assert found[pairing.partner(name)] == pairing
            assert pairing.high != pairing.low
        for candidate in pairing.candidates:
            assert name in found[candidate].candidates


def _no_metadata(name):
    del name
    return {}


def _entry(pair_id, expert, step):
    return {"tandem": json.dumps({"pair_id": pair_id, "expert": expert, "step": step})}


def _trained(*files):
    return {name: _entry("run", expert, step) for name, expert, step in files}
