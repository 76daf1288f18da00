"""What can be wrong with the time and content of clips: a function for each kind of fault, its limits and its fix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from ...wan.trigger_check import Verdict
from ...wan.video import UNEVEN_SHARE
from ..data.clips import LACKS_S, LACKS_SHARE
from ..data.dataset import Clip, Dataset
from .clip_look import SAME_RATE, ClipLook
from .pairs import Copy, Part, near_copies, same_files, without

SHOWN = 3
# Where nothing below says otherwise, the limits are ours.
GOOD_RATE = 23.5  # "24+ fps source"; 23.976 is film's rate
WHOLE = 0.9
"""A clip that stands for this part of its time does not move."""
STILL_S = 1.0
# A clip that lacks a cell of the latent grid, or a tenth, is as good as whole.
CELL, MOST_MISSING = 4, 0.1


class Fault(NamedTuple):
    """One clip or file that has it: what was found, and what should be."""

    name: str
    value: str
    expected: str
    clip: int | None = None
    """Its number in the dataset; None for a file that is not used, and for the dataset as a whole."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of fault with everything that has it, and what to do."""

    kind: str
    verdict: Verdict
    faults: tuple[Fault, ...]
    fix: str

    def text(self) -> str:
        """One line, however many have it: the first are named."""
        same = len({fault.expected for fault in self.faults}) == 1
        shown = self.faults[:SHOWN]
        said = [f"{f.name}: {f.value}" + ("" if same else f" ({f.expected})") for f in shown]
        more = len(self.faults) - SHOWN
        said += [f"and {more} more"] if more > 0 else []
        head = [f"{len(self.faults)}x"] if len(self.faults) > 1 else []
        head += [f"expected: {fault.expected}" for fault in shown[:1] if same]
        return f"{self.kind} ({', '.join(head)}): {'; '.join(said)}"


@dataclass(frozen=True)
class Ward:
    """A dataset with what was seen of its clips. `looks` is None for a clip that could not be read."""

    dataset: Dataset
    names: tuple[str, ...]
    looks: tuple[ClipLook | None, ...]

    def seen(self) -> Iterator[tuple[int, Clip, ClipLook]]:
        for number, (clip, look) in enumerate(zip(self.dataset.clips, self.looks, strict=True)):
            if look is not None:
                yield number, clip, look

    def moving(self) -> Iterator[tuple[int, Clip, ClipLook]]:
        """Clips of more than one frame, which are not blank from end to end."""
        for number, clip, look in self.seen():
            if clip.frames > 1 and look.blank < look.frames:
                yield number, clip, look

    def fault(self, number: int, value: str, expected: str) -> Fault:
        return Fault(self.names[number], value, expected, number)


def low_rate(ward: Ward) -> Finding | None:
    faults = []
    for number, clip, look in ward.moving():
        fps = ward.dataset.clip_fps(clip)
        if look.told_fps < SAME_RATE * fps and not _stands(look):
            faults.append(ward.fault(number, _rate(look), f"at least {fps:g} fps"))
    fix = "Frames would be shown twice, and motion jerks: take sources of 24 fps or more, not raised from less"
    return finding("rate too low", "bad", faults, fix)


def source_rate(ward: Ward) -> Finding | None:
    """Between the rate of training and 24 fps; of a whole multiple of its rate every frame or every nth is used."""
    faults = []
    for number, clip, look in ward.moving():
        fps = ward.dataset.clip_fps(clip)
        times = look.told_fps / fps
        even = abs(times - round(times)) <= 1 - SAME_RATE
        if fps <= look.told_fps < GOOD_RATE and not even:
            faults.append(ward.fault(number, _rate(look), "24 fps or more advised"))
    fix = "It has fewer than the advised 24 fps: look whether it moves smoothly, or take another source"
    return finding("source rate", "warning", faults, fix)


def variable_rate(ward: Ward) -> Finding | None:
    faults = [
        ward.fault(number, f"{look.uneven:.0%} of the intervals are uneven", "one rate")
        for number, _, look in ward.moving()
        if look.uneven > UNEVEN_SHARE
    ]
    fix = "Frames are taken by their time stamps, so time is right, but steps are uneven: record at a fixed rate"
    return finding("variable rate", "warning", faults, fix)


def shorter(ward: Ward) -> Finding | None:
    faults = []
    for number, clip, _ in ward.seen():
        asked = ward.dataset.clip_asked(clip)
        missing = asked - clip.frames
        if clip.frames > 1 and missing > CELL and missing >= MOST_MISSING * asked:
            fps = ward.dataset.clip_fps(clip)
            expected = f"{asked} frames at {fps:g} fps: {asked / fps:.2f} s"
            faults.append(ward.fault(number, f"{clip.frames} frames", expected))
    fix = "It is used at its own length: take a longer clip, or lower frames"
    return finding("short", "warning", faults, fix)


def copies(ward: Ward) -> Finding | None:
    faults = [_copied(ward, copy, _how(ward, copy)) for copy in same_files(_parts(ward))]
    return finding("duplicate", "bad", faults, "Keep one: use repeats to show a clip more often")


def truncated(ward: Ward) -> Finding | None:
    """Files, each with its first clip; their clips themselves are whole."""
    lengths = {path: (has_s, stated_s) for path, has_s, stated_s in ward.dataset.cut_off}
    for _, clip, look in ward.seen():
        stated_s = look.file_s + look.missing_s
        if look.missing_s > max(LACKS_S, LACKS_SHARE * stated_s):
            lengths[clip.path] = look.file_s, stated_s
    numbered = reversed(list(enumerate(ward.dataset.clips)))
    firsts = sorted(
        {c.path: n for n, c in numbered if c.path in lengths}.items(), key=itemgetter(1)
    )
    faults = [
        ward.fault(number, f"ends after {has_s:.1f} s", f"{stated_s:.1f} s, as its header says")
        for path, number in firsts
        for has_s, stated_s in [lengths[path]]
    ]
    return finding("truncated", "warning", faults, "Copy or download it again: its end is missing")


def near(ward: Ward) -> Finding | None:
    parts, seen = _parts(ward), {n: look for n, _, look in ward.seen()}
    if not parts:
        return None
    empty = np.zeros((5, 64), bool)
    hashes = np.stack([seen[n].hashes if n in seen else empty for n in range(len(parts))])
    usable = np.array([n in seen and not seen[n].blank for n in range(len(parts))])
    tints = [seen[n].tints if n in seen else empty for n in range(len(parts))]
    known = {copy.clip for copy in same_files(parts)}
    found = without(near_copies(hashes, tints, parts, usable), known)
    faults = [_copied(ward, copy, "looks like") for copy in found]
    fix = "Keep one of them unless they move differently: the rest are shown as if you had repeated it"
    return finding("near duplicate", "warning", faults, fix)


def frozen(ward: Ward) -> Finding | None:
    faults = [
        ward.fault(number, "nothing moves", "motion")
        for number, clip, look in ward.moving()
        if look.still_s > 0 and _stands(look) and not clip.regularisation
    ]
    return finding("frozen", "bad", faults, "Take it out, or use one frame of it as a picture")


def still(ward: Ward) -> Finding | None:
    faults = [
        ward.fault(number, f"stands for {look.still_s:.1f} s of {look.seconds:.1f} s", "motion")
        for number, clip, look in ward.moving()
        if look.still_s >= STILL_S and not _stands(look) and not clip.regularisation
    ]
    return finding("still stretch", "warning", faults, "Cut the part out in which nothing moves")


def blank(ward: Ward) -> Finding | None:
    faults = [
        ward.fault(number, "black" if look.black else "one colour", "a picture")
        for number, _, look in ward.seen()
        if look.blank == look.frames
    ]
    return finding("blank", "bad", faults, "Take it out: nothing is to be seen")


def blank_frames(ward: Ward) -> Finding | None:
    faults = [
        ward.fault(number, _blank_where(look), "a picture in each frame")
        for number, _, look in ward.moving()
        if look.blank
    ]
    return finding("blank frames", "warning", faults, "Cut the fade off, or what is blank within")


def cuts(ward: Ward) -> Finding | None:
    faults = [
        ward.fault(number, _cut_where(look), "one shot")
        for number, _, look in ward.moving()
        if look.cuts_s
    ]
    fix = "The LoRA would learn to cut: set clip_mode to scenes in Tandem Dataset, or cut the file there"
    return finding("scene cut", "bad", faults, fix)


def in_one_line(text: str) -> str:
    """Names of files may hold anything: what cannot be shown in a line becomes a space."""
    shown = (character if character.isprintable() else " " for character in text)
    return " ".join("".join(shown).split())


def finding(kind: str, verdict: Verdict, faults: Sequence[Fault], fix: str) -> Finding | None:
    """None where no clip has the fault."""
    return Finding(kind=kind, verdict=verdict, faults=tuple(faults), fix=fix) if faults else None


def _stands(look: ClipLook) -> bool:
    return look.still_s >= WHOLE * (look.seconds - 1 / look.fps)


def _rate(look: ClipLook) -> str:
    repeats = "" if look.told_fps == look.fps else f" ({look.fps:.4g} with repeated frames)"
    return f"{look.told_fps:.4g} fps{repeats}"


def _copied(ward: Ward, copy: Copy, how: str) -> Fault:
    return ward.fault(copy.clip, f"{how} {ward.names[copy.of]}", "each clip once")


def _how(ward: Ward, copy: Copy) -> str:
    paths = [ward.dataset.clips[number].path for number in (copy.clip, copy.of)]
    return "the same clip as" if paths[0] == paths[1] else "the same file as"


def _parts(ward: Ward) -> list[Part]:
    parts = []
    for clip in ward.dataset.clips:
        fps = ward.dataset.clip_fps(clip)
        first, last = clip.start / fps, (clip.start + clip.frames - 1) / fps
        parts.append(Part(clip.path, clip.digest, first, last, clip.frames))
    return parts


def _cut_where(look: ClipLook) -> str:
    named = ", ".join(f"{seconds:.2f} s" for seconds in look.cuts_s[:SHOWN])
    more = len(look.cuts_s) - SHOWN
    return f"cut at {named}" + (f" and {more} more" if more > 0 else "")


def _blank_where(look: ClipLook) -> str:
    middle = look.blank - look.blank_head - look.blank_tail
    places = (look.blank_head, "beginning"), (middle, "middle"), (look.blank_tail, "end")
    colour = "black" if look.black else "one colour"
    said = [
        f"{frames} frames at the {place}" if place != "middle" else f"{frames} within"
        for frames, place in places
        if frames
    ]
    return f"{colour}: {', '.join(said)}"
