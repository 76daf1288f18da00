"""ComfyUI inside this process, and a family of any size loaded by its own loader."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from pathlib import Path

import torch

from ..training.samples import EncodedClip
from ..wan.families import Role
from ..wan.miniature.layouts import TransformerSize
from ..wan.miniature.random_family import write_family


def import_comfy() -> None:
    """Once; on the CPU unless a GPU is there."""
    sys.path.insert(0, os.environ["TANDEM_COMFYUI"])
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    # Weights in memory of their own, as on a GPU: matrix products from a mapped file are up to twice as slow,
    # which would slow those who use the loaded weights and spare those who make copies.
    args.disable_mmap = True
    import comfy.sd  # noqa: F401

    import nodes  # noqa: F401


def load_pair(size: TransformerSize) -> dict[Role, object]:
    """Both experts as a prompt loads them: in inference mode. Needs `import_comfy` first."""
    import comfy.sd

    # The files stay until the process ends: core's trainer loads its own copy of the model from them.
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    files = write_family(Path(folder.name), transformer=size)
    with torch.inference_mode():
        return {
            "high_noise": comfy.sd.load_diffusion_model(str(files.high_noise)),
            "low_noise": comfy.sd.load_diffusion_model(str(files.low_noise)),
        }


def random_clips(
    latent: tuple[int, int, int], *, count: int, text: tuple[int, int]
) -> list[EncodedClip]:
    """Clips of noise: what is timed or weighed does not depend on their content."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return [
        EncodedClip(
            name=str(index),
            x0=noise(16, *latent),
            context=noise(*text),
            mask=torch.zeros(4, *latent),
            image_latent=noise(16, *latent),
        )
        for index in range(count)
    ]
