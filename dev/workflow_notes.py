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

The stack holds a 4-step lightning pair ([high]({high}), [low]({low}), to be put into *models/loras*). It wants 4
steps, cfg 1.0 and shift 5: the sampler takes 2 steps with each expert.
"""
