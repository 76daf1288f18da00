"""A pack for the host under test: has training meet with trouble, once, at a forward pass of a network."""

import time

import comfy.model_management
import torch
from comfy.ldm.wan.model import WanModel

FORWARD = WanModel.forward


def no_vram(velocity):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def no_ram(velocity):
    return velocity + torch.empty(1 << 50, dtype=torch.uint8)  # the allocator's own error


def slow(velocity):
    time.sleep(60)
    return velocity


TROUBLES = {
    "nan": lambda velocity: velocity * torch.nan,
    "no vram": no_vram,
    "no ram": no_ram,
    "slow": slow,
}


class TestTrouble:
    """Arms it: the forward pass number `at` of training from now on, counted from 1."""

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"kind": (list(TROUBLES),), "at": ("INT", {"default": 1})}}

    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "run", True, "test"

    @classmethod
    def IS_CHANGED(cls, **_):  # noqa: N802 - the host's name
        return float("nan")

    def run(self, kind, at):
        calls = 0

        def forward(self, *args, **kwargs):
            nonlocal calls
            velocity = FORWARD(self, *args, **kwargs)
            if comfy.model_management.in_training:
                calls += 1
                if calls == at:
                    WanModel.forward = FORWARD
                    return TROUBLES[kind](velocity)
            return velocity

        WanModel.forward = forward
        return {"ui": {"text": [f"{kind} at {at}"]}}


NODE_CLASS_MAPPINGS = {"TestTrouble": TestTrouble}
