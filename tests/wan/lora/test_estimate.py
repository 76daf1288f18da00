"""Costs before loading: bytes as the files have them, operations by counting, speed with its source."""

import pytest
from tandem_wan.wan.lora import estimate
from tandem_wan.wan.lora.changes import Change
from tandem_wan.wan.lora.estimate import (
    CARDS,
    MB,
    FileCost,
    LoraWork,
    Slowdown,
    card_advice,
    extra_flop_share,
    file_cost,
    lora_works,
    slowdown,
    stack_cost,
)
from tandem_wan.wan.lora.header import LoraHeader, TensorInfo
from tandem_wan.wan.lora.keys import HeaderMatch, match_header

KEYS = "diffusion_model.blocks.0.{}.{}"


def cost_of(file: str, expert: str, used: int, whole: int | None = None, works=()) -> FileCost:
    return FileCost(
        file=file,
        expert=expert,
        used_bytes=used,
        file_bytes=used if whole is None else whole,
        works=tuple(works),
    )


def products(outputs: int, inputs: int) -> int:
    """Operations of W x, counted one by one: a product and a sum for each entry of W."""
    return sum(2 for _ in range(outputs) for _ in range(inputs))


def test_only_what_finds_a_place_on_an_expert_is_counted_for_it():
    header = LoraHeader(
        {
            KEYS.format("ffn.0", "lora_A.weight"): TensorInfo("BF16", (4, 8)),
            KEYS.format("ffn.0", "lora_B.weight"): TensorInfo("F32", (16, 4)),
            KEYS.format("cross_attn.k_img", "lora_A.weight"): TensorInfo("F8_E4M3", (4, 8)),
            KEYS.format("cross_attn.k_img", "lora_B.weight"): TensorInfo("I64", (8, 4)),
            "flag": TensorInfo("BOOL", (3,)),
        }
    )
    match = match_header(header, {"blocks.0.ffn.0.weight": (16, 8)})
    cost = file_cost(header, match, file="x", expert="high_noise")
    assert cost.used_bytes == 4 * 8 * 2 + 16 * 4 * 4
    assert cost.file_bytes == cost.used_bytes + 4 * 8 * 1 + 8 * 4 * 8 + 3
    assert cost.works == (LoraWork("blocks.0.ffn.0", 4, 8, 16),)


def test_a_stack_costs_the_sum_of_its_files_on_each_expert():
    cost = stack_cost(
        [
            cost_of("x", "high_noise", 6 * MB),
            cost_of("y", "high_noise", 4 * MB, whole=6 * MB),
            cost_of("x", "low_noise", 6 * MB),
        ]
    )
    assert [(e.expert, e.num_loras, e.num_bytes) for e in cost.experts] == [
        ("high_noise", 2, 10 * MB),
        ("low_noise", 1, 6 * MB),
    ]
    assert cost.num_bytes == 16 * MB
    assert cost.loading_bytes == 22 * MB


def test_the_extra_operations_are_those_of_two_thin_products_beside_a_square_one():
    works = [LoraWork("q", 4, 24, 24), LoraWork("ffn.0", 2, 24, 56)]
    extra = products(4, 24) + products(24, 4) + products(2, 24) + products(56, 2)
    own = products(24, 24) + products(56, 24)
    assert extra_flop_share(works) == extra / own


def test_two_updates_of_one_layer_count_the_layer_once():
    twice = [LoraWork("q", 4, 24, 24), LoraWork("q", 12, 24, 24)]
    assert extra_flop_share(twice) == extra_flop_share([LoraWork("q", 16, 24, 24)])
    assert extra_flop_share([]) == 0.0


def test_ranks_add_up_on_the_layer_that_carries_the_most():
    works = [LoraWork("q", 8, 4, 4), LoraWork("k", 16, 4, 4), LoraWork("q", 32, 4, 4)]
    files = [cost_of(f"{i}", "single", 0, works=[work]) for i, work in enumerate(works)]
    assert stack_cost(files).experts[0].rank_total == 40


def test_works_are_the_low_rank_updates_of_linear_layers():
    changes = (
        Change("q.weight", "LoRA", {}, (24, 16), 8, 8.0),
        Change("patch_embedding.weight", "LoRA", {}, (24, 36, 1, 2, 2), 8, 8.0),
        Change("norm.weight", "difference", {}, (24,), None, None),
    )
    assert lora_works(HeaderMatch(changes, 3, (), "")) == (LoraWork("q", 8, 16, 24),)


@pytest.mark.parametrize(
    ("num_loras", "speed"),
    [
        (1, (0.95, 0.98)),
        (2, (0.95, 0.98)),
        (4, (0.90, 0.95)),
        (5, (0.85, 0.90)),
        (50, (0.85, 0.90)),
    ],
)
def test_where_nothing_is_measured_the_expected_speed_is_what_users_report(
    num_loras, speed, monkeypatch
):
    monkeypatch.setattr(estimate, "MEASURED", ())
    found = slowdown(num_loras)
    assert (found.slowest, found.fastest) == speed
    assert "not measured" in found.provenance
    assert slowdown(0) is None


def test_measured_speeds_follow_each_other_without_a_gap_and_say_where_they_come_from():
    ends = [0]
    for found in estimate.MEASURED:
        assert found.least_loras == ends[-1] + 1 and "measured on" in found.provenance
        assert found.slowest < found.fastest < 1
        ends.append(found.most_loras)
    speeds = [found.slowest for found in estimate.MEASURED]
    assert speeds == sorted(speeds, reverse=True), "more LoRAs are not faster"


def test_a_measurement_goes_before_a_report(monkeypatch):
    measured = Slowdown(2, 2, 0.91, 0.93, "two LoRAs of rank 32 on a named machine")
    monkeypatch.setattr(estimate, "MEASURED", (measured,))
    assert slowdown(2) is measured
    assert slowdown(1) is estimate.REPORTED[0]


def test_a_card_is_advised_by_its_memory_and_the_number_of_loras():
    assert card_advice(15.6, 4) == (
        "On a card of 16 GiB up to 4 LoRAs an expert are usual, here are 4."
    )
    assert card_advice(16, 5).endswith(
        "here are 5. If memory runs out: 2-3 LoRAs, 480p in place of 720p, 49 frames in place of 81, block swap."
    )
    assert "If memory" not in card_advice(24, 5)
    assert [most for _, most in CARDS] == sorted((most for _, most in CARDS), reverse=True)
    assert CARDS[-1][0] == 0, "every card has a line"


def test_the_text_says_memory_work_and_speed_as_it_stands():
    works = [LoraWork("q", 32, 5120, 5120)]
    cost = stack_cost(
        [
            cost_of("x", "high_noise", 150 * MB, works=works),
            cost_of("y", "low_noise", 150 * MB, works=works),
        ]
    )
    assert cost.text(24) == (
        "300 MB of updates, up to 450 MB while loading; the model's own weights stay as they are, no copy of them is "
        "made.\n"
        "  high_noise: 1 LoRA, 150 MB, rank 32 together, 1.2% more operations in the linear layers\n"
        "  low_noise: 1 LoRA, 150 MB, rank 32 together, 1.2% more operations in the linear layers\n"
        f"1 on one expert: 97% to 98% of the speed without LoRAs ({estimate.MEASURED[0].provenance}).\n"
        "On a card of 24 GiB up to 8 LoRAs an expert are usual, here are 1."
    )
    assert stack_cost([]).text() == "Nothing to load."


def test_the_json_holds_the_numbers_and_where_the_speed_is_from():
    entries = stack_cost([cost_of("x", "single", 6 * MB)]).as_json()
    assert entries["bytes"] == 6 * MB
    assert entries["experts"][0]["num_loras"] == 1
    assert entries["speed"]["provenance"]
    assert stack_cost([]).as_json()["speed"] is None
