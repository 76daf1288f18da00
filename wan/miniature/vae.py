"""Wan 2.1's causal video VAE at any width, in one pass over the whole clip.

Programs run it in pieces of a few frames with caches; over the whole clip the caches are plain
zero padding at the front, so one pass gives the same numbers and is quick to train.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

CHANNELS = 16
WIDTHS = (1, 2, 4, 4)
# Levels 2 and 3 of the encoder halve time; the decoder mirrors them (wan/modules/vae2_1.py).
HALVES_TIME = (False, True, True)

# What the networks see is (latent - mean) / deviation, by channel (wan/modules/vae2_1.py, mean and std).
LATENT_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
LATENT_DEVIATION = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


class CausalConv(nn.Conv3d):
    """A convolution over (batch, channels, frames, height, width) that sees no later frame."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        time, height, width = (size // 2 for size in self.kernel_size)
        if input.shape[2] == 1 and time:
            # All but the last tap would only see padding.
            picture = F.conv2d(input[:, :, 0], self.weight[:, :, -1], self.bias, 1, (height, width))
            return picture[:, :, None]
        padded = F.pad(input, (0, 0, 0, 0, 2 * time, 0)) if time else input
        return F.conv3d(padded, self.weight, self.bias, self.stride, (0, height, width))


class ChannelNorm(nn.Module):
    """Divides each pixel by the root mean square of its channels."""

    def __init__(self, width: int, *axes: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, *axes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # As F.normalize(x, dim=1) * sqrt(width) with its eps of 1e-12, without the norm's slow backward.
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-12) * self.gamma


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            ChannelNorm(inputs, 1, 1, 1),
            nn.SiLU(),
            CausalConv(inputs, outputs, 3),
            ChannelNorm(outputs, 1, 1, 1),
            nn.SiLU(),
            nn.Identity(),  # dropout in Wan's own training; keeps the numbers of the keys
            CausalConv(outputs, outputs, 3),
        )
        self.shortcut = CausalConv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.residual(x)


class PixelAttention(nn.Module):
    """Attention with one head over the pixels of each frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width, 1, 1)
        self.to_qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames, height = x.shape[2:4]
        pictures = rearrange(x, "b c f h w -> (b f) c h w")
        q, k, v = rearrange(
            self.to_qkv(self.norm(pictures)), "n (three c) h w -> three n (h w) c", three=3
        )
        mixed = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        out = self.proj(rearrange(mixed, "n (h w) c -> n c h w", h=height))
        return x + rearrange(out, "(b f) c h w -> b c f h w", f=frames)


class Shrink(nn.Module):
    """Halves height and width, and with `time` the frames after the first."""

    def __init__(self, width: int, *, time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, width, 3, stride=2)
        )
        self.time_conv = nn.Conv3d(width, width, (3, 1, 1), stride=(2, 1, 1)) if time else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = _each_frame(self.resample, x)
        if self.time_conv is None or x.shape[2] == 1:
            return x
        return torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)


class Grow(nn.Module):
    """Doubles height and width and halves the channels; with `time` doubles the frames after the first."""

    def __init__(self, width: int, *, time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest-exact"),
            nn.Conv2d(width, width // 2, 3, padding=1),
        )
        self.time_conv = CausalConv(width, 2 * width, (3, 1, 1)) if time else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.time_conv is not None and x.shape[2] > 1:
            later = rearrange(
                self.time_conv(x[:, :, 1:]), "b (two c) f h w -> b c (f two) h w", two=2
            )
            x = torch.cat([x[:, :, :1], later], dim=2)
        return _each_frame(self.resample, x)


def _each_frame(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    frames = x.shape[2]
    return rearrange(
        layer(rearrange(x, "b c f h w -> (b f) c h w")), "(b f) c h w -> b c f h w", f=frames
    )


class Encoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = CausalConv(3, width, 3)
        layers, inputs = [], width
        for level, factor in enumerate(WIDTHS):
            layers += [Residual(inputs, factor * width), Residual(factor * width, factor * width)]
            inputs = factor * width
            if level < 3:
                layers.append(Shrink(inputs, time=HALVES_TIME[level]))
        self.downsamples = nn.Sequential(*layers)
        self.middle = _middle(inputs)
        self.head = _head(inputs, 2 * CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.downsamples(self.conv1(x))))


class Decoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        inputs = WIDTHS[-1] * width
        self.conv1 = CausalConv(CHANNELS, inputs, 3)
        self.middle = _middle(inputs)
        layers = []
        for level, factor in enumerate(reversed(WIDTHS)):
            outputs = factor * width
            layers += [Residual(inputs, outputs)] + [Residual(outputs, outputs) for _ in range(2)]
            if level < 3:
                layers.append(Grow(outputs, time=HALVES_TIME[2 - level]))
            inputs = outputs // 2
        self.upsamples = nn.Sequential(*layers)
        self.head = _head(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.upsamples(self.middle(self.conv1(x))))


def _middle(width: int) -> nn.Sequential:
    return nn.Sequential(Residual(width, width), PixelAttention(width), Residual(width, width))


def _head(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ChannelNorm(width, 1, 1, 1), nn.SiLU(), CausalConv(width, outputs, 3))


class VideoAutoencoder(nn.Module):
    """Pixels in [-1, 1] as (batch, 3, frames, height, width) to raw latents and back."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.encoder = Encoder(width)
        self.conv1 = CausalConv(2 * CHANNELS, 2 * CHANNELS, 1)
        self.conv2 = CausalConv(CHANNELS, CHANNELS, 1)
        self.decoder = Decoder(width)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """The latents' mean, (batch, 16, 1 + (frames - 1) / 4, height / 8, width / 8)."""
        return self.conv1(self.encoder(pixels)).chunk(2, dim=1)[0]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.conv2(latents))


def start_still(vae: VideoAutoencoder) -> None:
    """Sets the taps that look back in time to silence, so that at first each frame is coded alone.

    From random taps the first minutes go into unlearning what earlier frames add.
    """
    with torch.no_grad():
        for name, module in vae.named_modules():
            if not isinstance(module, nn.Conv3d):
                continue
            if module.kernel_size[1] == 3:
                module.weight[:, :, :-1] = 0
                module.weight[:, :, -1] *= 3**0.5
            if name.endswith("time_conv"):
                copies = module.out_channels // module.in_channels
                module.weight.zero_()
                _bias(module).zero_()
                module.weight[:, :, -1, 0, 0] = torch.eye(module.in_channels).repeat(copies, 1)


def _bias(layer: nn.Conv3d) -> torch.Tensor:
    assert layer.bias is not None
    return layer.bias


def normalised(latents: torch.Tensor) -> torch.Tensor:
    """Raw latents as Wan's networks see them; (batch, 16, ...)."""
    return (latents - _channels(LATENT_MEAN)) / _channels(LATENT_DEVIATION)


def raw(latents: torch.Tensor) -> torch.Tensor:
    """What `normalised` came from."""
    return latents * _channels(LATENT_DEVIATION) + _channels(LATENT_MEAN)


def _channels(values: Sequence[float] | torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32).view(1, -1, 1, 1, 1)


def fold_scale(
    vae: VideoAutoencoder, mean: torch.Tensor, deviation: torch.Tensor, scale: float
) -> None:
    """Makes the networks see latents of mean 0 and deviation `scale`, and the pixels stay what they are.

    mean, deviation: (16,), of the raw latents so far. The 1 x 1 x 1 convolutions at both ends of the
    latents take any such change exactly.
    """
    gain = scale * torch.tensor(LATENT_DEVIATION) / deviation
    offset = torch.tensor(LATENT_MEAN) - gain * mean
    into, out_of = _bias(vae.conv1), _bias(vae.conv2)
    with torch.no_grad():
        vae.conv1.weight[:CHANNELS] *= gain.view(-1, 1, 1, 1, 1)
        into[:CHANNELS] = gain * into[:CHANNELS] + offset
        vae.conv2.weight /= gain.view(1, -1, 1, 1, 1)
        out_of -= vae.conv2.weight[:, :, 0, 0, 0] @ offset


def to_vae(video: torch.Tensor) -> torch.Tensor:
    """(clips, frames, height, width, 3) in [0, 1] as the VAE takes it."""
    return rearrange(video, "b f h w c -> b c f h w") * 2 - 1


def from_vae(pixels: torch.Tensor) -> torch.Tensor:
    """(clips, frames, height, width, 3) in [0, 1]."""
    return (rearrange(pixels, "b c f h w -> b f h w c") / 2 + 0.5).clamp(0, 1)
