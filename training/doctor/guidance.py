"""What is said of a dataset as a whole: how many clips, of what kind and shape, with which captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from statistics import median
from typing import NamedTuple

from ..captions.shapes import words_of
from ..data.dataset import Clip
from .findings import Fault, Finding, Ward, finding

ANY, STYLE = "any", "image style"
WHOLE_DATASET = "the dataset"
# Ours: shapes of which each needs clips enough to be learnt, and the part that only keeps what is known.
MOST_SHAPES, RARE = 4, 3
MOST_REGULARISATION = 0.5
ADVISED_S, ADVISED_SIDE_PX = 5.0, 720
ROUNDED_S = 0.05


class Guide(NamedTuple):
    """How many clips a kind of LoRA takes: below `fewest` is bad, below `low` a warning."""

    fewest: int
    low: int
    advice: str
    best: str = "30-50"
    """What to keep of too many pictures."""


# The advice is practitioners' experience. It names no number below which nothing works: `fewest` is ours. Of pictures
# alone it says that too many do harm.
MOST_PICTURES = 60
PICTURES = Guide(
    8, 16, "8-15 pictures work if very consistent, 16-24 are fair, 25-60 best, more dilute"
)
GUIDES = {
    ANY: Guide(5, 10, "10-20 clips for a style or effect, 30-50 for complex motion"),
    "motion": Guide(10, 30, "30-50 clips for complex motion"),
    "character": Guide(5, 10, "10-20 pictures or clips for a character", "10-20"),
    STYLE: PICTURES,
    "video effect": Guide(5, 10, "10-20 clips for a style or effect"),
    "general video": Guide(5, 10, "10-20 clips for a style or effect, 30-50 for complex motion"),
}
PRESETS = tuple(GUIDES)
MOVING = ("motion", "video effect", "general video")
"""Presets that teach motion."""


def whole_findings(ward: Ward, preset: str) -> list[Finding]:
    """Everything that is wrong with the dataset as a whole."""
    checks: tuple[Callable[[], Finding | None], ...] = (
        lambda: captions(ward),
        lambda: number(ward, preset),
        lambda: mixed_media(ward, preset),
        lambda: shapes(ward),
        lambda: regularisation(ward),
    )
    return [found for check in checks if (found := check()) is not None]


def advice(ward: Ward, preset: str) -> list[str]:
    """What would be better and is no fault: it costs no points."""
    said = []
    if number(ward, preset) is None:
        count = _distinct(ward)
        teach = "teach" if len(count) != 1 else "teaches"
        said = [f"{counted(count)} that {teach}: {_guide(ward, preset).advice}"]
    videos = [(n, look) for n, clip, look in ward.seen() if clip.frames > 1]
    # What is advised is the length of the film, of which training takes its windows.
    films = {clip.path: look.file_s for _, clip, look in ward.seen() if clip.frames > 1}
    if short := [seconds for seconds in films.values() if seconds < ADVISED_S - ROUNDED_S]:
        said.append(
            f"{len(short)} of {len(films)} film{'s' * (len(films) != 1)} last{'s' * (len(short) == 1)} under "
            f"{ADVISED_S:g} s (median {median(short):.1f} s): 5-10 s are advised"
        )
    small = sum(min(look.width, look.height) < ADVISED_SIDE_PX for _, look in videos)
    if small:
        said.append(
            f"{small} of {len(videos)} clip{'s' * (len(videos) != 1)} come{'s' * (small == 1)} from "
            "sources below 720p: 720p or more is advised"
        )
    return said


def counted(are_pictures: Iterable[bool]) -> str:
    """`6 clips and 1 picture`, `1 picture`, `0 clips`; for each of them whether it is a picture."""
    kinds = Counter(are_pictures)
    numbers = ("clip", kinds[False]), ("picture", kinds[True])
    said = [f"{n} {noun}{'s' * (n != 1)}" for noun, n in numbers if n]
    return " and ".join(said) or "0 clips"


def _distinct(ward: Ward) -> list[bool]:
    """Of each clip that teaches, as `Dataset.counts` counts them, whether it is a picture."""
    parts = {ward.dataset.part(clip): clip.frames == 1 for _, clip in _taught(ward)}
    return list(parts.values())


def captions(ward: Ward) -> Finding | None:
    """Only whether they are there: the caption report looks into them."""
    faults = [
        ward.fault(number, "no caption", "a caption")
        for number, clip in enumerate(ward.dataset.clips)
        if not words_of(clip.caption)
    ]
    fix = "Write a .txt beside each, or use Tandem Caption Template; Tandem Caption Report judges them"
    return finding("caption missing", "bad", faults, fix)


def number(ward: Ward, preset: str) -> Finding | None:
    count, guide = ward.dataset.counts().clips, _guide(ward, preset)
    value = counted(_distinct(ward))
    if count < guide.low:
        fault = [Fault(WHOLE_DATASET, value, f"at least {guide.low}; {guide.advice}")]
        fix = "Add clips that differ in all but what is to be learnt; with few, they must be very consistent"
        return finding("too few", "bad" if count < guide.fewest else "warning", fault, fix)
    if count > MOST_PICTURES and _only_pictures(ward) and preset not in MOVING:
        fault = [Fault(WHOLE_DATASET, value, f"at most {MOST_PICTURES} pictures; {guide.advice}")]
        fix = f"Keep the best {guide.best}: what is to be learnt is diluted by what differs"
        return finding("too many", "warning", fault, fix)
    return None


def mixed_media(ward: Ward, preset: str) -> Finding | None:
    """Pictures where motion is to be learnt, and motion where pictures are."""
    clips = _taught(ward)
    if preset == STYLE:
        return _clips_among_pictures(ward)
    pictures = [n for n, clip in clips if clip.frames == 1]
    if not pictures or (len(pictures) == len(clips) and preset not in MOVING):
        return None
    only = len(pictures) == len(clips)
    faults = [ward.fault(n, "a picture", "a clip that moves") for n in pictures]
    fix = (
        "Pictures hold no motion: take clips"
        if only
        else "For image-to-video they freeze motion in the high-noise expert: give them to the low-noise expert alone, "
        "or train a text-to-video model with them"
    )
    return finding(
        "pictures only" if only else "pictures among clips",
        "bad" if only else "warning",
        faults,
        fix,
    )


def _clips_among_pictures(ward: Ward) -> Finding | None:
    clips = _taught(ward)
    moving = [n for n, clip in clips if clip.frames > 1]
    if len(moving) == len(clips):
        return None
    faults = [ward.fault(n, "a clip that moves", "a picture") for n in moving]
    fix = "The style of images is learnt from pictures: take a frame of it as one, or leave it out"
    return finding("clips among pictures", "warning", faults, fix)


def shapes(ward: Ward) -> Finding | None:
    """Clips of the rare shapes, where there are many."""
    sizes = [ward.dataset.clip_size(clip)[:2] for clip in ward.dataset.clips]
    numbers = Counter(sizes)
    if len(numbers) <= MOST_SHAPES:
        return None
    said = f"one of {len(numbers)} shapes, {{}}x{{}}, of which there are {{}}"
    rare = min(RARE, max(numbers.values()))
    faults = [
        ward.fault(n, said.format(*size, numbers[size]), f"at most {MOST_SHAPES} shapes")
        for n, size in enumerate(sizes)
        if numbers[size] <= rare
    ]
    fix = "Crop the clips to a few shapes, or set fit to one size in Tandem Dataset"
    return finding("mixed aspect", "warning", faults, fix)


def regularisation(ward: Ward) -> Finding | None:
    counts = ward.dataset.counts()
    share = counts.regularisation / counts.shown if counts.shown else 0.0
    if share <= MOST_REGULARISATION:
        return None
    fault = Fault(WHOLE_DATASET, f"{share:.0%} of an epoch is regularisation", "at most half")
    fix = "Lower the repeats of the regularisation folder, or take fewer of its clips"
    return finding("regularisation", "warning", [fault], fix)


def _taught(ward: Ward) -> list[tuple[int, Clip]]:
    return [(n, clip) for n, clip in enumerate(ward.dataset.clips) if not clip.regularisation]


def _guide(ward: Ward, preset: str) -> Guide:
    return PICTURES if preset == ANY and _only_pictures(ward) else GUIDES[preset]


def _only_pictures(ward: Ward) -> bool:
    return all(clip.frames == 1 for _, clip in _taught(ward))
