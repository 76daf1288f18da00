"""What the shipped workflows say of themselves, in a note on the canvas."""

TRAIN_NOTE = """### Train a LoRA pair, then sample with it

{advice}

The graph captions the clips, trains a LoRA for each expert on **the very models that are loaded here**, and
samples the same clip twice: without and with the pair.

- High noise runs first and decides motion and layout; low noise runs second and adds detail.
- *Cancel* stops the run and saves it; queue again and it goes on. A finished run is not trained twice.
- The pair lands in your loras folder as *{name}_high_noise* and *{name}_low_noise*.
"""
BACKGROUND_NOTE = """### Train in the background, and sample meanwhile

{advice}

Queue it once: the run begins, and the queue is free again. **Queue it again whenever you like**: the clip on the
right is sampled with the newest checkpoint. Training waits while a prompt runs and then goes on by itself;
neither changes what the other gives.

- *Pause*, *Resume* and *Stop* are on the trainer. A stopped run goes on when the graph is queued again.
- *Cancel* stops the clip that is being sampled, never the run.
- Until the first checkpoint there is nothing to sample with, and the result node says so.
"""
STACK_NOTE = """### Image to video with a stack of LoRAs

Each row of the stack names a LoRA, or a pair for both experts. The load report says what every file did; a LoRA
that matches nothing stops the graph instead of doing nothing.

- A 4-step lightning pair ([high]({high}), [low]({low})). It wants 4 steps, cfg 1.0 and shift 5: the sampler takes 2
steps with each expert.
- Two [reward LoRAs]({rewards}) for quality: HPS v2.1 on the low-noise expert at 0.5, MPS on the high-noise one at 0.3.

All go into *models/loras*. Add rows of your own; `"on": false` switches one off.
"""
TOY_STACK_NOTE = """### Two LoRAs at once

Queue this graph as it is: it takes seconds on a CPU. The miniature Wan 2.2 knows neither loops nor stripes; the stack
holds a LoRA for each: the motion on both experts, the look on the low-noise one alone, which makes detail. Set a
row's `"on"` to false and one of the two is gone.

The load report says what each file did on each expert.
"""
SCHEDULE_NOTE = """### Strength over the steps

Queue this graph as it is. The row's `schedule` says how strong the LoRA is at each step of the high-noise expert:
whole while the motion is decided, then less; `schedule_low` is for the low-noise expert.

- `0.2@0, 1@50%` are keyframes with a ramp between them; `1@0 | 0@0.5` jumps.
- `0.2 0.5 1` is a value for each step, `1 -> 0.4` a ramp over the run.

The node on the right draws what a text means, step by step, before anything is sampled.
"""
SCENES_NOTE = """### Scenes

Queue this graph as it is. Three prompts, each with a stack of its own, are sampled one after the other on the same
models; each begins with the last frame of the one before. The LoRA is on in the second scene alone.

Equal stacks are loaded once. The report says what each scene did.
"""
WAN21_NOTE = """### Wan 2.1, one model

The same stack works with the one model of Wan 2.1: connect it to *model_high* alone. The row holds a
[distilled LoRA]({}) for few steps at cfg 1.0, to be put into *models/loras*.
"""
CHECK_NOTE = """### Check a dataset before anything is trained on it

Put your clips into *input/my_clips*, with or without captions, and write your trigger. **Queue it: it needs no
model, and changes no file.** Each node says what it found, with a fix for each finding.

- *What spoils a LoRA*: clips that are broken, frozen, black, too short, cut in the middle, or copies of each other;
and how many clips the purpose wants. The contact sheet marks them.
- *The captions that are there*: their length, their sentence shapes, and whether the trigger stands in each of them.
- *Captions from a template*: how they would be, beside those that are there. `write` puts them into the .txt files
and keeps the old ones; `undo` brings those back.
- *The plan of a run*: steps, epochs, and how often each expert sees a clip. What would spoil the run is said here,
not after it. Below it stands a config of another trainer, judged in the same way: paste your own over the example.

Mend the clips, queue again, and when all verdicts are good connect dataset and plan to the trainer.
"""
LONG_NOTE = """### Ten seconds, with radial attention

161 frames from an image. Attention is most of the work at this length; radial attention lets frames that are far apart
in time see only a narrow band of each other. *What it can gain* says how much, before anything is sampled.

- A 4-step lightning pair ([high]({high}), [low]({low})), here with 8 steps, of which the first 2 are dense.
- Wan was trained on 81 frames: longer clips may repeat themselves. A LoRA for length is another matter.
- *Calls of attention* says afterwards what ran sparse, and its share of the time.
"""
TOY_LONG_NOTE = """### Radial attention on the miniature

Queue this graph as it is: it takes seconds on a CPU. The miniature's clips are so short that there is nothing to gain;
the graph shows how the nodes are put together, and that the clip is the one that it should be.

For real sizes open *long_video*.
"""
