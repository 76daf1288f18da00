"""Reasons that hold for more than one trainer."""

MIN_SNR = (
    "min-SNR weights a DDPM loss by alphas_cumprod, which flow matching has not; in its place loss.weighting can be "
    "clamped snr, w(sigma) = min(SNR, gamma) / (SNR + 1)"
)
RATE_ENDS = "a rate falls to 0 here, over an expert's own steps"
NO_CLIP = (
    "Gradients were not clipped there; a plan always has a limit, 1e6 here, which is never reached."
)
OURS = "of Tandem's own"
SAID = "other keys say it"
ONE_NETWORK = (
    "a run has one for both experts; export each expert's plan alone, or set order to sequential"
)
ONE_FOR_ALL = "all layers of a run have one rank, alpha, dropout and rate there"
TOO_FEW_BLOCKS = "it swaps fewer of the 40 blocks"

WHY = {
    "preset": OURS,
    "notes": OURS,
    "allow_long": OURS,
    "held_out": OURS,
    "stop_on": OURS,
    "rules": OURS,
    "family": OURS,
    "train": OURS,
    "optimizer.clip": "its optimizer has no such value",
    "optimizer.beta2": "its optimizer has no such value",
    "optimizer.ema": "it keeps no average of the weights",
    "boundary": "it has no such value",
    "seed": "it takes 0 to 4,294,967,295",
    "steps": "what is written is the sum of whole runs",
    "patterns": ONE_FOR_ALL,
    "loss.gamma": "it has no weight that is cut off",
    "prune.last": "it keeps every checkpoint",
    "prune.every": "it has no such choice of checkpoints",
    **dict.fromkeys(
        (f"alpha_phases.{n}" for n in ("alphas", "least", "stability", "improvement", "fit", "targets")),
        "alpha is the same from the first step to the last there",
    ),
    **{
        f"{expert}.{name}": "only automagic has it"
        for expert in ("high", "low")
        for name in ("bump", "minimum", "maximum")
    },
}  # fmt: skip
"""Why a plan's value is kept in the comment, where a trainer says nothing more particular."""


WHY_DATA = {
    "media": "it looks at what the folder holds",
    "trigger": "captions are used as they are; replace {trigger} in them",
    "fps": "the model decides",
    "clip_mode": "it has no such way to cut clips",
    "clips_per_file": "it has no such limit",
    "flips": "it does not mirror",
    "crops": "it cuts in the middle",
    "repeats": "whole numbers only",
    "regularisation": "it has no regularisation set",
    "width": "it has one number for the area",
    "height": "it has one number for the area",
    "fit": "it has no such choice",
    "frames": "it has no such number",
}
