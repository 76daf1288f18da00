"""The words of docs/radial.md; whatever is a figure of ours is filled in."""

from __future__ import annotations

HEAD = """\
# Radial attention

Written by `make radial`: every figure and picture is computed or measured, except what is cited.

The nodes are [Tandem Radial Attention](../web/docs/TandemRadialAttention.md),
[Tandem Radial Plan](../web/docs/TandemRadialPlan.md) and [Tandem Radial Calls](../web/docs/TandemRadialCalls.md);
the workflows `long_video` and `long_video_miniature` put them together.

## What the mask is

A video model cuts a clip into tokens. At {size}, a frame of the latent is {high} rows of {wide} tokens, {frame:,} in
all; {frames} frames are {latents} latent frames, {tokens:,} tokens. In self-attention each of these looks at each
other: {pairs:,} pairs, in every block, in every step. With twice the frames it is four times the pairs.

Most of them do little. How much a token gets from another one falls with their distance in time and in the picture.
Radial attention (Li et al. 2025, [arXiv 2506.19852](https://arxiv.org/abs/2506.19852)) turns that into a fixed rule:

- A frame sees itself and its two neighbours **whole**.
- Of frames further away it sees a **band**: for each token, the tokens around the same place. The band halves
  whenever the distance in time doubles, is scaled by `decay_factor`, and never gets narrower than a floor.
- Where the band would get very narrow, only **some pairs** of frames see each other at all.
- Everyone sees the **first frame** whole. In image-to-video it is the picture that was given.

The mask depends on the size alone, not on what is shown: it is the same in every block, head, step and clip, and is
known before the run.
"""
PICTURE = """
![{alt}](radial_480p.png)

*What Tandem Radial Plan draws for {size}, {frames} frames, preset {preset}. Left: each row is a frame that looks, each
column one that is looked at; bright is seen whole, and in the dark corners are pairs that do not see each other. Right:
one row for each token of the middle frame, and what it sees of the frames around it, token by token: neighbours whole,
then bands along the diagonal.*

The same in numbers, how many tokens are seen to either side of the same place. A row of tokens is {wide} long at
832 x 480 and {wider} at 1280 x 720:
"""
LONGER = """
The longer the clip, the more there is to leave out:

![Mask at 1280 x 720, 161 frames](radial_720p.png)

It is computed in tiles of {rows} tokens that look at tiles of {keys}. Tiles begin anew with each frame, and a tile is
computed if the rule keeps any pair in it: so no pair of the rule is ever lost, and the edge of a frame sees its own
frame whole, at any size. Width, height and frames need not divide by anything. Frames with fewer tokens than those of
832 x 480 get smaller tiles and a narrower floor, in proportion.
"""
GAIN = """
## What it can gain

**A sparse call** of attention can be 1 / density times as fast as a dense one. **The whole run** gains less. The other
multiplications of the network take as long as before, and so do the steps and blocks that stay dense: that is Amdahl's
law, and no kernel gets around it.

![Density and the limit of the whole run, by frames](radial_limits.png)

*Left: density; more frames, more to leave out. Right: the limit of a whole run of Wan 14B. With 4 steps, of which the
first {dense} stay dense under {preset}, there is little to gain at any length.*
"""
GAIN_NOTE = """
These are limits by arithmetic: operations of Wan 14B, all of them at one speed. Where dense attention runs slower than
other products, as it does with most kernels, the gain can be larger; with quantised attention, or with weights that
are brought from main memory in between, it is smaller. **No figure on this page was measured on a GPU.**

What was published can be checked by the same arithmetic (settings of the paper, its own layout):

{published}
The first reaches more than equal speed allows: presumably dense attention was slower than other products. The second
stays below. The paper measured on an H100, with its own kernels.

Before a run, ask Tandem Radial Plan about your size. Where the whole run can gain less than 1.2 times, it says so. For
{size} and {frames} frames it says:

```
{report}
```
"""
PRESET = """
## Which presets there are, and what they rest on
"""
PRESET_NOTE = """
None of them was compared with the others by us on a 14B model. To see what your model bears, turn on *probe* for one
run: each block is computed both ways, and Tandem Radial Calls proposes decay and dense blocks from the errors. It
measures the error of attention, which is not yet the look of the clip.
"""
LIMITS = """
## What it cannot do

- **Short clips gain little.** With fewer than {least} frames the mask leaves nothing out; at {frames} frames of {size}
  the whole run can be {whole:.2f} times as fast at most (preset {preset}, {steps} steps).
- **It does not make a model know longer clips.** Wan was trained on 81 frames. Beyond, it may repeat itself or stand
  still, dense or sparse; that takes a LoRA that was trained on longer clips.
- **It is not the same clip.** Leaving pairs out changes what comes out, most of all in the first steps, which decide
  what is where: hence the dense ones. Compare by eye before a large batch.
- **Few steps gain little**: see the dotted line above.
- Camera, Animate, S2V, HuMo and other relatives run dense, since where their frames lie in the sequence is not known;
  `strict` makes that an error.
- *gather*, which runs anywhere, works tile by tile. At sizes as small as the miniature's a sparse call is slower than a
  dense one.

## How it is trained with

Connect a MODEL that carries Tandem Radial Attention to the trainer: there is nothing else to set. The same mask is used
forwards and backwards, in held-out losses and previews; dense blocks stay dense, and dense steps become the noise
levels that they cover in a schedule of 20 steps. The settings are written into the LoRA and belong to the run: with
others it is another run. Backends that have no backward pass are refused before anything is trained.

A LoRA that was trained so is meant to be sampled with the same settings.
"""
MINIATURE = """
## Measured on the miniature

The [miniature](../wan/miniature/MODEL_CARD.md) is a Wan 2.2 of a million parameters an expert. Its clips of
{side} x {side} have {frame} tokens a frame, in {latents} latent frames, so floor, band and tile shrink with them. Two
settings, on both experts, in the real ComfyUI over HTTP, on the CPU (clips of {made}):

- **{shipped}**: the preset as it comes. {shipped_text}; density {shipped_share:.3f}.
- **{sparse}**: {sparse_text}; tiles of one token; density {sparse_share:.3f}. Nearly all that neither lies next to a
  frame nor in the first one is gone: of the pairs that the rule may touch, {left:.0%} are left. This is harsher than
  any preset.

What Tandem Radial Plan draws for the preset, and the same for the harsher setting:

![The mask of the preset](radial_miniature.png)

![The mask of the harsher setting](radial_miniature_sparse.png)

*kind*: share of clips whose nearest motion is the asked one. *path*: kind, and a path error under 3 px. *path error*:
root mean square over the frames of how far the shape is from where it was asked to be. *first frame*: likeness to the
picture that was given. *to dense*: likeness to the dense clip of the same seed. {judged} clips a row, so one clip is
{one:.3f} of a share; the goal is a kind within {kind:g} and a path error within {path:g} px of the dense clips.

### Motions that the base knows

The networks were trained dense, and never saw the mask.
"""
CLAIMS = """
### What was claimed, and what came out
"""
KNOWN_PICTURE = """
At {shipped:.0f} dB (*{name}*) and {sparse:.0f} dB (*{harsh}*) the clips are nearly the dense ones: for these motions
the miniature needs little of what is left out, since neighbours and the first frame say enough. That is how the mask is
meant; it is no measure of what a large model needs.

![Trails of the clips](radial_clips.png)

What Tandem Radial Calls says of the rows:

"""
LONGER_CLIPS = """
### Longer clips

{long} frames, {latents} latent frames; the miniature has never seen more than {short}. The asked path is the same,
over more frames. So the dense row says what the networks make of a length that they do not know, and the others what
the mask changes about that.
"""
TAUGHT = """
### A motion that was trained with it

The motion LoRA of the [report](../wan/miniature/REPORT.md) was trained dense; another one by the same dataset and
plan with *{sparse}* on both experts. Its files say that it was: {metadata}.
"""
TAUGHT_NOTE = """
*path* goes from {dense:.2f} (trained and sampled dense) to {sparse:.2f} (trained and sampled sparse): it counts the
clips under 3 px, and where the mean lies near that, a little more or less of an error moves many of them over the
line. The goal is about the error itself.

![Trails of the clips by training and sampling](radial_motion.png)
"""
END = """
### Limits of these figures

Tiny networks with {layers} blocks, {latents} latent frames, toy clips, one training run of each LoRA, {judged} clips a
row: small differences between rows are chance. They show that operator, patch and training do what they should, and
that networks of this kind bear the mask. They do not show what a 14B model loses, nor how much time it saves.

To go on after an end: `make radial`. To begin anew, delete the folder that it names. The page alone, from what is kept:
`python3 dev/environment.py run benchmarks miniature.radial_page`.
"""
