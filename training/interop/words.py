"""Reasons that hold for more than one trainer."""

MIN_SNR = (
    "min-SNR weights a DDPM loss by alphas_cumprod, which flow matching has not; in its place stands the "
    "flow-matching weight w(sigma) = 1 on sigmas of the schedule warped by shift"
)
CONSTANT_RATE = "schedules of the rate are not read: set schedule and warmup with Tandem Edit Plan"
NO_CLIP = (
    "Gradients were not clipped there; a plan always has a limit, 1e6 here, which is never reached."
)
OURS = "of Tandem's own"

WHY = {
    "preset": OURS,
    "notes": OURS,
    "allow_long": OURS,
    "held_out": OURS,
    "stop_on": OURS,
    "family": OURS,
    "train": OURS,
    "optimizer.clip": "its optimizer has no such value",
    "optimizer.beta2": "its optimizer has no such value",
    "high.bump": "only automagic has it",
    "high.minimum": "only automagic has it",
    "high.maximum": "only automagic has it",
    "low.bump": "only automagic has it",
    "low.minimum": "only automagic has it",
    "low.maximum": "only automagic has it",
    "high.rate": "this expert is not trained, or a single model takes the larger of both",
    "low.rate": "this expert is not trained, or a single model takes the larger of both",
    "boundary": "it has no such value",
    "seed": "it takes 0 to 4,294,967,295",
    "steps": "what is written is the sum of whole runs",
}
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
