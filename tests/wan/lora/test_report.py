"""The answer that every loaded file owes its user: numbers, causes, and what is harmless."""

import torch
from tandem_wan.wan.expert import LinearShape
from tandem_wan.wan.lora.keys import match_lora
from tandem_wan.wan.lora.report import FileReport, LoadReport, file_report

LAYERS = {f"blocks.{i}.self_attn.{name}": LinearShape(8, 8) for i in range(5) for name in "qkvo"}


def pair(layer: str, rank: int = 4, alpha: float | None = None, width: int = 8) -> dict:
    tensors = {
        f"diffusion_model.{layer}.lora_A.weight": torch.randn(rank, width),
        f"diffusion_model.{layer}.lora_B.weight": torch.randn(width, rank),
    }
    if alpha is not None:
        tensors[f"diffusion_model.{layer}.alpha"] = torch.tensor(alpha)
    return tensors


def report_of(*pairs: dict, strength: float = 0.75) -> FileReport:
    tensors = {key: tensor for part in pairs for key, tensor in part.items()}
    return file_report(
        match_lora(tensors, LAYERS),
        file="x.safetensors",
        expert="high_noise",
        reason="its name says high",
        strength=strength,
    )


def test_the_numbers_are_those_of_the_file():
    report = report_of(
        pair("blocks.0.self_attn.q", rank=4, alpha=2.0),
        pair("blocks.1.self_attn.q", rank=2, alpha=2.0),
        pair("blocks.2.self_attn.q", rank=4, alpha=1.5),
        pair("blocks.9.self_attn.q"),
    )
    assert (report.matched, report.total) == (3, 4)
    assert report.ranks == (2, 4)
    assert report.alphas == (1.5, 2.0)
    lines = report.text().splitlines()
    assert lines[0] == "x.safetensors -> high_noise (its name says high)"
    assert lines[1] == (
        "  3 of 4 modules matched, rank 2/4, alpha 1.5/2, strength 0.75, keys diffusion_model.*"
    )


def test_leftovers_are_grouped_by_cause_with_a_count_and_an_example():
    report = report_of(
        pair("blocks.0.self_attn.q"),
        *(pair(f"blocks.{i}.self_attn.q") for i in range(5, 9)),
        *(pair(f"blocks.{i}.self_attn.k", width=6) for i in range(3)),
        {"diffusion_model.blocks.0.self_attn.norm_q.diff": torch.ones(8)},
    )
    leftover_lines = [line for line in report.text().splitlines() if "left over" in line]
    assert len(leftover_lines) == 3
    by_cause = {cause: line for line in leftover_lines for cause in CAUSES if cause in line}
    assert "8 keys left over: no such layer" in by_cause["no such layer"]
    assert "diffusion_model.blocks.5.self_attn.q.lora_A.weight" in by_cause["no such layer"]
    assert "6 keys left over: shape ((4, 6) and (6, 4) in the file" in by_cause["shape"]
    assert "1 keys left over: unknown kind" in by_cause["unknown kind of key"]


CAUSES = ("no such layer", "shape", "unknown kind of key")


def test_a_wan_21_lora_on_22_is_whole_and_its_image_keys_are_called_harmless():
    image = [pair(f"blocks.{i}.cross_attn.{name}") for i in range(2) for name in ("k_img", "v_img")]
    report = report_of(*(pair(layer) for layer in LAYERS), *image)
    assert (report.matched, report.total) == (20, 24)
    assert report.whole
    assert report.fatal == ()
    text = report.text()
    assert "8 keys of Wan 2.1's image encoder have no place here: harmless" in text
    assert "left over" not in text


def test_an_unmatched_key_that_matters_makes_a_report_not_whole():
    assert not report_of(pair("blocks.0.self_attn.q"), pair("blocks.9.self_attn.q")).whole
    assert report_of(pair("blocks.0.self_attn.q")).whole


def test_a_file_that_matches_nothing_is_never_whole():
    assert not report_of().whole
    only_image = report_of(pair("blocks.0.cross_attn.k_img"))
    assert only_image.matched == 0
    assert not only_image.whole


def test_the_first_line_of_a_stacks_report_is_the_sum():
    files = (
        report_of(pair("blocks.0.self_attn.q"), pair("blocks.1.self_attn.q")),
        report_of(pair("blocks.0.self_attn.k"), pair("blocks.9.self_attn.k")),
    )
    report = LoadReport(files, ("y.safetensors -> low_noise: strength 0, not applied",))
    assert (report.matched, report.total) == (3, 4)
    lines = report.text().splitlines()
    assert lines[0] == "3 of 4 modules matched."
    assert "strength 0, not applied" in lines[-1]


def test_an_empty_stack_says_that_nothing_was_applied():
    assert LoadReport().text() == "No LoRA was applied."
    assert LoadReport(notes=("row 1 is off",)).text() == "No LoRA was applied.\nrow 1 is off"
