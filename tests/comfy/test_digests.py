"""Whatever changes what an encoder makes changes its digest; where its weights lie does not."""

from __future__ import annotations

from types import SimpleNamespace
from uuid import uuid4

import pytest
import torch

pytestmark = pytest.mark.comfy

ONES = torch.ones(3)


def described(number: float) -> float:
    return number


def patcher(patches=None, *, size=1000, changed=None):
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.zeros(size), requires_grad=False)
    if changed is not None:
        module.weight[changed] = 7.0
    more = {"patches_uuid": uuid4(), "forced_hooks": None, "hook_patches": {}}
    return SimpleNamespace(backup={}, patches=patches or {}, model=module, **more)


def entry(value, *, strength=1.0, strength_model=1.0, offset=None, function=None):
    return {"weight": [(strength, value, strength_model, offset, function)]}


def adapter(alpha):
    from comfy.weight_adapter.lora import LoRAAdapter

    return LoRAAdapter(set(), (ONES[:, None], ONES[None], alpha, None, None, None))


def merge(*patches):
    """What merging two encoders gives: the other one's weight, then what was patched onto that one."""
    return [(ONES, described), *patches]


PATCHES = {
    "none": dict,
    "a difference": lambda: entry((ONES,)),
    "a difference by name": lambda: entry(("diff", (ONES,))),
    "a replacement": lambda: entry(("set", (ONES,))),
    "half of it": lambda: entry((ONES,), strength=0.5),
    "half of the base": lambda: entry((ONES,), strength_model=0.5),
    "nothing of the base": lambda: entry((ONES,), strength_model=0.0),
    "a part": lambda: entry((ONES,), offset=(0, 0, 3)),
    "another part": lambda: entry((ONES,), offset=(0, 3, 3)),
    "a function": lambda: entry((ONES,), function=described),
    "padded": lambda: entry((ONES, {"pad_weight": True})),
    "alpha 1": lambda: entry(adapter(1.0)),
    "alpha 3": lambda: entry(adapter(3.0)),
    "no alpha": lambda: entry(adapter(None)),
    "another encoder": lambda: entry(merge(), strength=0.5, strength_model=0.5),
    "a patched one": lambda: entry(merge((1.0, (ONES,), 1.0, None, None))),
    "one patched more": lambda: entry(merge((2.0, (ONES,), 1.0, None, None))),
    "twice": lambda: {"weight": entry((ONES,))["weight"] * 2},
}


@pytest.mark.parametrize("name", ["patched_digest", "whole_digest"])
def test_everything_in_a_patch_counts(name):
    from tandem_wan.nodes.host import wan_models

    digest = getattr(wan_models, name)
    digests = {kind: digest(patcher(make())) for kind, make in PATCHES.items()}
    assert len(set(digests.values())) == len(PATCHES)
    assert digests == {kind: digest(patcher(make())) for kind, make in PATCHES.items()}


def test_a_function_that_holds_something_is_taken_for_no_other():
    from tandem_wan.nodes.host.wan_models import patched_digest

    functions = [lambda x, n=n, k=k: x + n for n in (1, 2) for k in (1,)]
    digests = [patched_digest(patcher(entry((ONES,), function=f))) for f in functions]
    assert digests[0] != digests[1]
    assert patched_digest(patcher(entry((ONES,), function=functions[0]))) == digests[0]


def test_a_digest_without_patches_is_that_of_the_module():
    from tandem_wan.nodes.host import wan_models

    ours = patcher()
    assert wan_models.patched_digest(ours) == wan_models.module_digest(ours.model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_the_whole_digest_sees_every_value_of_every_dtype(dtype, monkeypatch):
    from tandem_wan.nodes.host import wan_models, weight_digests

    monkeypatch.setattr(weight_digests, "BLOCK", 64)  # bytes: several blocks to a tensor
    found = set()
    for place in (None, 0, 5, 499, 999):
        ours = patcher(changed=None)
        values = torch.zeros(1000)
        if place is not None:
            values[place] = 1.0
        ours.model.weight = torch.nn.Parameter(values.to(dtype), requires_grad=False)
        found.add(wan_models.whole_digest(ours))
    assert len(found) == 5


def test_the_whole_digest_is_that_of_the_plain_weights_wherever_a_patch_is_merged():
    from tandem_wan.nodes.host.wan_models import whole_digest

    ours = patcher()
    before = whole_digest(ours)
    other = patcher()
    other.backup = {"weight": SimpleNamespace(weight=other.model.weight.detach().clone())}
    other.model.weight += 3
    assert whole_digest(other) == before


def test_weights_are_read_whole_once_for_a_loaded_model(monkeypatch):
    from tandem_wan.nodes.host import wan_models, weight_digests

    read, whole = [], weight_digests._tensor_digest
    monkeypatch.setattr(
        weight_digests, "_tensor_digest", lambda tensor: read.append(1) or whole(tensor)
    )
    ours = patcher()
    assert len({wan_models.whole_digest(ours) for _ in range(3)}) == 1 and len(read) == 1
    ours.patches = entry((ONES,))
    wan_models.whole_digest(ours)
    assert len(read) == 3, "the weight and its patch"
    ours.model.weight += 1
    wan_models.whole_digest(ours)
    assert len(read) == 5, "it was changed in place"


def group(*strengths):
    import comfy.hooks

    hooks = comfy.hooks.HookGroup()
    for strength in strengths:
        hooks.add(comfy.hooks.WeightHook(strength_clip=strength))
    return hooks


def encoder(hooks=None, **more):
    ours = patcher()
    ours.forced_hooks = hooks
    plain = {"layer_idx": None, "tokenizer_options": {}, "use_clip_schedule": False}
    return SimpleNamespace(**{
        "patcher": ours,
        "tokenize": lambda text: {"a": [[(ord(letter), 1.0) for letter in text]]},
        **plain,
        **more,
    })  # fmt: skip


def test_hooks_have_a_name_of_their_own_also_where_the_memory_is_used_again():
    from tandem_wan.nodes.host.cache_keys import TextNames

    keys = []
    for strength in range(20):
        hooks = group(float(strength))
        keys.append(TextNames(encoder(hooks))("x"))
        assert TextNames(encoder(hooks))("x") == keys[-1]
        del hooks
    assert len(set(keys)) == 20


def test_how_texts_are_encoded_is_part_of_a_run():
    from comfy.text_encoders.wan import WanT5Tokenizer
    from tandem_wan.nodes.host.cache_keys import text_encoder_digest
    from tandem_wan.nodes.host.wan_models import patched_digest

    host = WanT5Tokenizer.__new__(WanT5Tokenizer)
    plain = encoder(tokenizer=host)
    assert text_encoder_digest(plain, ["", "X"]) == patched_digest(plain.patcher)

    def hooked(*strengths):
        return encoder(group(*strengths), tokenizer=host)

    variants = [
        lambda: encoder(tokenizer=host),
        lambda: encoder(tokenizer=host, layer_idx=-2),
        lambda: encoder(tokenizer=host, tokenizer_options={"umt5xxl_min_length": 1}),
        lambda: encoder(tokenizer=object()),
        lambda: encoder(tokenizer=object(), tokenize=lambda text: {"a": [[(1, 1.0)]]}),
        lambda: hooked(0.5),
        lambda: hooked(0.25),
        lambda: hooked(0.5, 0.5),
    ]
    digests = [text_encoder_digest(make(), ["", "X"]) for make in variants]
    assert len(set(digests)) == len(variants)
    again = [text_encoder_digest(make(), ["", "X"]) for make in variants]
    assert again == digests, "also after a restart, when everything is loaded anew"
