"""What the tensors of a file become, kind by kind, and why others become nothing."""

import pytest
import torch
from tandem_wan.wan.lora.header import header_of
from tandem_wan.wan.lora.keys import Leftover, MatchedLora, match_header, match_lora
from tandem_wan.wan.lora.sizes import other_model, parameter_shapes
from tandem_wan.wan.miniature.layouts import TransformerSize, transformer_layout

RANK, WIDTH, FFN = 4, 16, 24
WAN = transformer_layout(TransformerSize(width=WIDTH, ffn_width=FFN, text_width=8, layers=2))
Q = "blocks.0.self_attn.q"
SPELLINGS = {
    "diffusion_model": f"diffusion_model.{Q}",
    "kohya": "lora_unet_blocks_0_self_attn_q",
    "LyCORIS": "lycoris_blocks_0_attn1_to_q",
    "PEFT": f"base_model.model.{Q}",
}


def only(matched: MatchedLora, target: str = f"{Q}.weight") -> torch.Tensor:
    """The delta of the one change of a file, on a weight of random numbers."""
    assert matched.leftovers == ()
    assert list(matched.updates) == [target]
    torch.manual_seed(1)
    return matched.updates[target].delta(torch.randn(WAN[target]))


def spelled(stem: str, **parts: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"{stem}.{part.replace('__', '.')}": tensor for part, tensor in parts.items()}


def lora_parts(
    rank: int = RANK, inputs: int = WIDTH, outputs: int = WIDTH
) -> dict[str, torch.Tensor]:
    return {
        "lora_A__weight": torch.randn(rank, inputs),
        "lora_B__weight": torch.randn(outputs, rank),
    }


@pytest.mark.parametrize("stem", SPELLINGS.values(), ids=SPELLINGS)
def test_a_lokr_with_one_whole_factor(stem):
    w1, a, b = torch.randn(2, 4), torch.randn(8, RANK), torch.randn(RANK, 4)
    parts = {"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(2.0)}
    matched = match_lora(spelled(stem, **parts), WAN)
    torch.testing.assert_close(only(matched), 2 / RANK * torch.kron(w1, a @ b))
    assert (matched.kinds, matched.ranks, matched.alphas) == (("LoKr",), (RANK,), (2.0,))


@pytest.mark.parametrize("stem", SPELLINGS.values(), ids=SPELLINGS)
def test_a_lokr_with_two_whole_factors_is_not_scaled_by_the_alpha_of_its_file(stem):
    w1, w2 = torch.randn(2, 4), torch.randn(8, 4)
    parts = {"lokr_w1": w1, "lokr_w2": w2, "alpha": torch.tensor(1e10)}
    matched = match_lora(spelled(stem, **parts), WAN)
    torch.testing.assert_close(only(matched), torch.kron(w1, w2))
    assert (matched.ranks, matched.alphas) == ((), ())


@pytest.mark.parametrize("stem", SPELLINGS.values(), ids=SPELLINGS)
def test_a_loha(stem):
    parts = {
        f"hada_{half}": torch.randn(*shape)
        for half, shape in {
            "w1_a": (WIDTH, RANK),
            "w1_b": (RANK, WIDTH),
            "w2_a": (WIDTH, RANK),
            "w2_b": (RANK, WIDTH),
        }.items()
    }
    matched = match_lora(spelled(stem, **parts, alpha=torch.tensor(6.0)), WAN)
    one, two = (parts[f"hada_w{n}_a"] @ parts[f"hada_w{n}_b"] for n in (1, 2))
    torch.testing.assert_close(only(matched), 6 / RANK * one * two)


DORA_KEYS = {
    "PEFT": ("lora_magnitude_vector", (WIDTH,), 1),
    "PEFT, raw": ("lora_magnitude_vector.default.weight", (WIDTH,), 1),
    "LyCORIS": ("dora_scale", (WIDTH, 1), 1),
    "LyCORIS, inputs": ("dora_scale", (1, WIDTH), 0),
}


@pytest.mark.parametrize(("key", "shape", "over"), DORA_KEYS.values(), ids=DORA_KEYS)
def test_a_dora_divides_by_the_norm_of_the_changed_weight(key, shape, over):
    parts = lora_parts()
    magnitude = torch.rand(shape) + 1
    tensors = spelled(Q, **parts) | {f"{Q}.{key}": magnitude}
    matched = match_lora(tensors, WAN)
    delta = only(matched)
    torch.manual_seed(1)
    weight = torch.randn(WIDTH, WIDTH)
    moved = weight + parts["lora_B__weight"] @ parts["lora_A__weight"]
    lengths = magnitude.reshape((-1, 1) if over else (1, -1))
    expected = lengths * moved / moved.norm(dim=over, keepdim=True) - weight
    torch.testing.assert_close(delta, expected, rtol=1e-4, atol=1e-5)
    assert matched.kinds == ("DoRA (LoRA)",)


def test_the_axis_of_a_dora_on_a_layer_that_is_not_square_is_told_by_its_shape():
    stem = "blocks.0.ffn.0"
    parts = lora_parts(inputs=WIDTH, outputs=FFN)
    for length, axis in ((FFN, "outputs"), (WIDTH, "inputs")):
        tensors = spelled(stem, **parts, dora_scale=torch.ones(length))
        assert match_lora(tensors, WAN).updates[f"{stem}.weight"].axis == axis
    wrong = match_lora(spelled(stem, **parts, dora_scale=torch.ones(7)), WAN)
    assert {left.cause for left in wrong.leftovers} == {"shape"}
    assert "(7,)" in wrong.leftovers[0].detail


def test_differences_of_lightx2v_find_bias_norm_and_modulation():
    tensors = {
        f"diffusion_model.{Q}.lora_down.weight": torch.randn(RANK, WIDTH),
        f"diffusion_model.{Q}.lora_up.weight": torch.randn(WIDTH, RANK),
        f"diffusion_model.{Q}.diff_b": torch.randn(WIDTH),
        "diffusion_model.blocks.0.self_attn.norm_q.diff": torch.randn(WIDTH),
        "diffusion_model.blocks.0.norm3.diff": torch.randn(WIDTH),
        "diffusion_model.blocks.0.norm3.diff_b": torch.randn(WIDTH),
        "diffusion_model.blocks.0.modulation.diff": torch.randn(1, 6, WIDTH),
        "diffusion_model.blocks.1.diff_m": torch.randn(1, 6, WIDTH),
        "diffusion_model.head.head.diff": torch.randn(64, WIDTH),
        "diffusion_model.head.modulation.diff": torch.randn(1, 2, WIDTH),
        "diffusion_model.patch_embedding.diff": torch.randn(WIDTH, 36, 1, 2, 2),
    }
    matched = match_lora(tensors, WAN)
    assert matched.leftovers == ()
    assert matched.num_modules == len(matched.updates) == 10
    whole = {
        f"{Q}.bias": f"diffusion_model.{Q}.diff_b",
        "blocks.0.self_attn.norm_q.weight": "diffusion_model.blocks.0.self_attn.norm_q.diff",
        "blocks.0.norm3.weight": "diffusion_model.blocks.0.norm3.diff",
        "blocks.0.norm3.bias": "diffusion_model.blocks.0.norm3.diff_b",
        "blocks.0.modulation": "diffusion_model.blocks.0.modulation.diff",
        "blocks.1.modulation": "diffusion_model.blocks.1.diff_m",
        "head.head.weight": "diffusion_model.head.head.diff",
        "head.modulation": "diffusion_model.head.modulation.diff",
        "patch_embedding.weight": "diffusion_model.patch_embedding.diff",
    }
    for target, key in whole.items():
        assert torch.equal(matched.updates[target].delta(torch.zeros(WAN[target])), tensors[key])


def test_norms_of_lycoris_are_differences():
    tensors = {
        "lycoris_blocks_0_norm3.w_norm": torch.randn(WIDTH),
        "lycoris_blocks_0_norm3.b_norm": torch.randn(WIDTH),
    }
    matched = match_lora(tensors, WAN)
    assert set(matched.updates) == {"blocks.0.norm3.weight", "blocks.0.norm3.bias"}


def test_the_bias_of_an_up_factor_counts_alpha_over_rank_times():
    bias = torch.randn(WIDTH)
    tensors = spelled(Q, **lora_parts(), lora_B__bias=bias, alpha=torch.tensor(8.0))
    matched = match_lora(tensors, WAN)
    torch.testing.assert_close(
        matched.updates[f"{Q}.bias"].delta(torch.zeros(WIDTH)), 8 / RANK * bias
    )


def test_factors_of_a_convolution_make_its_kernel():
    down, up = torch.randn(RANK, 36, 1, 2, 2), torch.randn(WIDTH, RANK, 1, 1, 1)
    tensors = spelled("patch_embedding", lora_down__weight=down, lora_up__weight=up)
    expected = torch.einsum("o r x y z, r i t h w -> o i t h w", up, down)
    delta = only(match_lora(tensors, WAN), "patch_embedding.weight")
    torch.testing.assert_close(delta, expected, rtol=1e-4, atol=1e-5)


def test_a_middle_factor_holds_the_kernel_of_a_convolution():
    down, mid = torch.randn(RANK, 36, 1, 1, 1), torch.randn(RANK, RANK, 1, 2, 2)
    up = torch.randn(WIDTH, RANK, 1, 1, 1)
    parts = {"lora_down__weight": down, "lora_mid__weight": mid, "lora_up__weight": up}
    expected = torch.einsum("o m x y z, m n t h w, n i a b c -> o i t h w", up, mid, down)
    delta = only(match_lora(spelled("patch_embedding", **parts), WAN), "patch_embedding.weight")
    torch.testing.assert_close(delta, expected, rtol=1e-4, atol=1e-4)


def test_the_tucker_core_of_a_lokr_holds_the_kernel():
    core, a, b = torch.randn(RANK, RANK, 1, 2, 2), torch.randn(RANK, 8), torch.randn(RANK, 9)
    w1 = torch.randn(2, 4)
    second = torch.einsum("i j t h w, i o, j n -> o n t h w", core, a, b)
    parts = {"lokr_w1": w1, "lokr_t2": core, "lokr_w2_a": a, "lokr_w2_b": b}
    delta = only(match_lora(spelled("patch_embedding", **parts), WAN), "patch_embedding.weight")
    expected = torch.kron(w1[:, :, None, None, None], second.contiguous())
    torch.testing.assert_close(delta, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lora_A__weight": torch.randn(RANK, WIDTH + 1)},
        {"lora_B__weight": torch.randn(WIDTH + 1, RANK)},
        {"lora_B__weight": torch.randn(WIDTH, RANK + 1)},
        {"lora_A__weight": torch.randn(WIDTH)},
        {"lora_A__weight": torch.randn(0, WIDTH), "lora_B__weight": torch.randn(WIDTH, 0)},
    ],
    ids=["inputs", "outputs", "ranks differ", "one axis", "no rank"],
)
def test_a_wrong_shape_leaves_all_of_its_keys_over(wrong):
    tensors = spelled(Q, **(lora_parts() | wrong), alpha=torch.tensor(4.0))
    matched = match_lora(tensors, WAN)
    assert len(matched.updates) == 0
    assert {left.key for left in matched.leftovers} == set(tensors)
    assert {left.cause for left in matched.leftovers} == {"shape"}


def test_a_shape_that_does_not_fit_is_told_with_the_models():
    real = transformer_layout(
        TransformerSize(width=5120, ffn_width=13824, text_width=4096, layers=1)
    )
    tensors = {
        f"{Q}.lora_A.weight": torch.empty(RANK, 3072, device="meta"),
        f"{Q}.lora_B.weight": torch.empty(3072, RANK, device="meta"),
    }
    (left, _) = match_header(header_of(tensors), real).leftovers
    assert "the file is for Wan 5B (width 3072); the model is Wan 14B (width 5120)" in left.detail
    assert "(3072, 3072) in the file, (5120, 5120) in the model" in left.detail


def test_widths_of_no_known_model_are_shapes_and_nothing_more():
    assert other_model(f"{Q}.weight", (17, 17), WAN) is None


def test_the_first_layer_of_text_to_video_is_harmless_on_image_to_video():
    tensors = {"diffusion_model.patch_embedding.diff": torch.zeros(WIDTH, 16, 1, 2, 2)}
    (left,) = match_lora(tensors, WAN).leftovers
    assert (left.cause, left.expected) == ("shape", True)
    assert "t2v (16 input channels)" in left.detail
    assert "i2v (36 input channels)" in left.detail


@pytest.mark.parametrize("missing", ["lora_A__weight", "lora_B__weight"])
def test_half_a_pair_is_left_over(missing):
    parts = lora_parts()
    del parts[missing]
    matched = match_lora(spelled(Q, **parts, alpha=torch.tensor(1.0)), WAN)
    assert [left.cause for left in matched.leftovers] == ["half a pair"] * 2


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (("lokr_w1",), "LoKr without its lokr_w2"),
        (("hada_w1_a", "hada_w1_b", "hada_w2_a"), "LoHa without its hada_w2_b"),
        (("alpha",), "without factors"),
        (("dora_scale",), "without factors"),
        (("diff", "dora_scale"), "without the LoRA"),
    ],
)
def test_what_is_missing_is_named(parts, says):
    matched = match_lora(spelled(Q, **{part: torch.ones(1) for part in parts}), WAN)
    assert {left.cause for left in matched.leftovers} == {"half a pair"}
    assert says in matched.leftovers[0].detail


IMAGE_KEYS = (
    "diffusion_model.blocks.0.cross_attn.k_img",
    "lora_unet_blocks_0_cross_attn_v_img",
    "transformer.blocks.0.attn2.add_k_proj",
    "diffusion_model.blocks.0.cross_attn.norm_k_img",
    "diffusion_model.img_emb.proj.1",
    "transformer.condition_embedder.image_embedder.ff.net.0.proj",
)


@pytest.mark.parametrize("stem", IMAGE_KEYS)
def test_layers_of_the_image_encoder_are_harmless_where_the_model_has_none(stem):
    extra = spelled(stem, **lora_parts())
    matched = match_lora(spelled(Q, **lora_parts()) | extra, WAN)
    assert list(matched.updates) == [f"{Q}.weight"]
    assert matched.num_modules == 2
    assert {left.key for left in matched.leftovers} == set(extra)
    assert all(left.expected and left.cause == "no such layer" for left in matched.leftovers)


def test_layers_of_the_image_encoder_match_where_the_model_has_them():
    wan21 = WAN | {
        f"blocks.0.cross_attn.{name}.{part}": shape
        for name in ("k_img", "v_img")
        for part, shape in (("weight", (WIDTH, WIDTH)), ("bias", (WIDTH,)))
    }
    found = match_lora(spelled("transformer.blocks.0.attn2.add_k_proj", **lora_parts()), wan21)
    assert list(found.updates) == ["blocks.0.cross_attn.k_img.weight"]
    missing = match_lora(spelled("blocks.1.cross_attn.k_img", **lora_parts()), wan21)
    assert not any(left.expected for left in missing.leftovers)


def test_every_key_is_either_used_or_left_over():
    used = spelled(f"diffusion_model.{Q}", **lora_parts())
    left = {
        "junk": ("unknown kind of key", torch.ones(1)),
        "lora_unet_x.lora_up.weight": ("no such layer", torch.ones(2, 2)),
        "diffusion_model.blocks.1.ffn.0.alpha": ("half a pair", torch.tensor(1.0)),
        f"diffusion_model.{Q}.weight": ("unknown kind of key", torch.ones(WIDTH, WIDTH)),
        f"diffusion_model.{Q}.lora_A.bias": ("unknown kind of key", torch.ones(RANK)),
        f"transformer.{Q}.lora_A.weight": (
            "layer named twice",
            used[f"diffusion_model.{Q}.lora_A.weight"],
        ),
        f"transformer.{Q}.lora_B.weight": (
            "layer named twice",
            used[f"diffusion_model.{Q}.lora_B.weight"],
        ),
        f"diffusion_model.{Q}.lora_down.weight": ("layer named twice", torch.ones(RANK, WIDTH)),
    }
    matched = match_lora(used | {key: tensor for key, (_, tensor) in left.items()}, WAN)
    assert {key.key: key.cause for key in matched.leftovers} == {k: c for k, (c, _) in left.items()}
    (change,) = matched.changes
    assert set(change.keys.values()) == set(used)


def test_two_kinds_of_change_of_one_weight_are_not_guessed_at():
    tensors = spelled(Q, **lora_parts(), diff=torch.ones(WIDTH, WIDTH))
    matched = match_lora(tensors, WAN)
    assert len(matched.updates) == 0
    assert {left.cause for left in matched.leftovers} == {"layer named twice"}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("part", ["lora_A__weight", "alpha"])
def test_what_is_not_a_number_is_left_over_by_name(bad, part):
    parts = lora_parts() | {"alpha": torch.tensor(4.0)}
    parts[part].view(-1)[-1] = bad
    tensors = spelled(Q, **parts) | spelled("blocks.1.ffn.0", **lora_parts(outputs=FFN))
    matched = match_lora(tensors, WAN)
    assert list(matched.updates) == ["blocks.1.ffn.0.weight"]
    assert {change.target for change in matched.changes} == {"blocks.1.ffn.0.weight"}
    assert {left.cause for left in matched.leftovers} == {"not a number"}
    assert f"{Q}.{part.replace('__', '.')}" in matched.leftovers[0].detail


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
def test_numbers_that_are_no_floats_are_left_over(dtype):
    tensors = {key: tensor.to(dtype) for key, tensor in spelled(Q, **lora_parts()).items()}
    matched = match_lora(tensors, WAN)
    assert [left.cause for left in matched.leftovers] == ["unknown format"] * 2


def test_a_leftover_is_not_expected_unless_it_says_so():
    assert Leftover("key", "no such layer") == ("key", "no such layer", "", False)


class Quantised(torch.nn.Module):
    """A linear layer whose weight is packed, as the host's quantised ones."""

    def __init__(self) -> None:
        super().__init__()
        self.in_features, self.out_features = 6, 8
        self.packed = torch.nn.Parameter(torch.zeros(3, 8))
        self.bias = torch.nn.Parameter(torch.zeros(8))


def test_shapes_of_a_network_are_those_it_computes_with():
    network = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 5, bias=False), "q": Quantised()})
    assert parameter_shapes(network) == {
        "a.weight": (5, 4),
        "q.packed": (3, 8),
        "q.weight": (8, 6),
        "q.bias": (8,),
    }
