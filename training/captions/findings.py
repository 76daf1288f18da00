"""What can be found in captions, one function for each kind: how it is judged, and the fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from ...wan.trigger_check import TriggerCheck, Verdict, spelling_signs
from ...wan.wording import counted
from ..data.dataset import Clip, Dataset
from .names import named, path_names
from .near import near_pairs
from .shapes import (
    MOST_SHAPES,
    Shape,
    folded,
    other_capitals,
    placeholders,
    trigger_places,
    words_of,
)

# The run that worked had 20 words in every caption, its template about 12; the one that failed had 65-115.
GOOD_WORDS = (12, 20)
JUDGED_WORDS = (10, 22)  # what is judged good: "about" 12-20
WORDS_TEXT = "{}-{} (aim {}-{})".format(*JUDGED_WORDS, *GOOD_WORDS)
LONGEST = 40
FEWEST = 4
# Ours, and so are the limits below: words by which captions that are all alike differ (standard deviation).
GOOD_SPREAD, MOST_SPREAD = 3.0, 8.0
GOOD_SHAPES, CAPTIONS_PER_SHAPE = 3, 3
GOOD_PLACES = 3
MOST_OVERLONG = 0.2
TRIGGER_SHARE = 0.9
SHOWN, SHOWN_LETTERS = 3, 80
SPELLING = "trigger spelling"
"""The kind of finding whose place `trigger_token_finding` takes."""
TEMPLATE_FIX = "Write them anew with Tandem Caption Template"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `fix` is empty where the verdict is good."""

    kind: str
    verdict: Verdict
    text: str
    fix: str = ""


def trigger_token_finding(check: TriggerCheck, better: Sequence[TriggerCheck] = ()) -> Finding:
    """What the tokenizer says of the trigger and what it collides with, as a finding."""
    return Finding("trigger tokens", check.verdict, check.text(), check.fix(better))


def token_finding(tokens: list[int], limit: int) -> Finding:
    """How many tokens the captions have, their end included, against what the model is made for."""
    text = f"{min(tokens)}-{max(tokens)} tokens a caption, of {limit}"
    over = sum(count > limit for count in tokens)
    those, them = counted(over, "is", "are"), "it" if over == 1 else "them"
    if not over:
        return Finding("tokens", "good", text)
    return Finding(
        "tokens",
        "bad",
        f"{text}: {those} over it, and ComfyUI does not cut {them}",
        f"Shorten {them}: the model was never trained on so many tokens",
    )


def missing_finding(dataset: Dataset) -> Finding:
    """Clips whose caption is not there or has no word."""
    names = clip_names(dataset)
    without = [names[clip] for clip in dataset.clips if not words_of(clip.caption)]
    total = len(dataset.clips)
    if not without:
        return Finding(
            "missing", "good", f"{total} of {counted(total, 'clip has', 'clips have')} a caption"
        )
    return Finding(
        "missing",
        "bad",
        f"{len(without)} of {counted(total, 'clip has', 'clips have')} an empty caption or none: {_named(without)}",
        "Write a .txt file of the same name beside each, or use Tandem Caption Template",
    )


def placeholders_finding(clips: Sequence[Clip], trigger: str, names: Sequence[str]) -> Finding:
    """Captions in which a template has left a slot unfilled."""
    found = [placeholders(clip.caption, trigger) for clip in clips]
    having = [name for name, left in zip(names, found, strict=True) if left]
    if not having:
        return Finding("placeholders", "good", "No placeholder is left in a caption")
    kinds = sorted({each for left in found for each in left})
    return Finding(
        "placeholders",
        "bad",
        f"{', '.join(kinds[:SHOWN])} left in {counted(len(having), 'caption')}: {_named(having)}",
        "Replace them: {trigger} by setting trigger in Tandem Dataset, others in the caption files",
    )


def length_finding(words: Sequence[int], names: Sequence[str]) -> Finding:
    """Words of a caption on average, against about 12-20; `names` are those of their clips."""
    mean, low, high = fmean(words), min(words), max(words)
    ends = f"{low} in {names[words.index(low)]}, {high} in {names[words.index(high)]}"
    found = ends if low < high else f"{low}-{high}"
    text = f"{mean:.1f} words a caption on average ({found}); good: {WORDS_TEXT}"
    if JUDGED_WORDS[0] <= mean <= JUDGED_WORDS[1]:
        return Finding("length", "good", text)
    verdict = "bad" if mean > LONGEST or mean < FEWEST else "warning"
    long = mean > JUDGED_WORDS[1]
    fix = "Say only what is alike in all clips" if long else "Name subject and motion"
    return Finding(
        "length", verdict, text, f"{fix}, in one sentence of {GOOD_WORDS[0]}-{GOOD_WORDS[1]} words"
    )


def spread_finding(words: list[int]) -> Finding:
    """How far the captions differ in length."""
    spread = pstdev(words)
    text = f"Captions differ in length by {spread:.1f} words (standard deviation)"
    if spread <= GOOD_SPREAD:
        return Finding("spread", "good", text)
    verdict = "warning" if spread <= MOST_SPREAD else "bad"
    return Finding("spread", verdict, text, f"{TEMPLATE_FIX}, so that all are alike")


def overlong_finding(clips: Sequence[Clip], names: Sequence[str]) -> Finding:
    """Captions that describe more than a LoRA should be told by name."""
    long = [n for n, c in zip(names, clips, strict=True) if len(words_of(c.caption)) > LONGEST]
    if not long:
        return Finding("overlong", "good", f"No caption has more than {LONGEST} words")
    verdict = "bad" if len(long) > MOST_OVERLONG * len(clips) else "warning"
    those = counted(len(long), "caption describes", "captions describe")
    text = f"{those} too much, more than {LONGEST} words: {_named(long)}"
    return Finding("overlong", verdict, text, "Leave out what the LoRA is not to learn by name")


def trigger_findings(captions: list[str], trigger: str) -> list[Finding]:
    """The share of captions with the trigger, and where it stands in them."""
    if not trigger:
        fix = "Set trigger in Tandem Dataset, for example MERMAID"
        return [Finding("trigger", "warning", "No trigger is set: its share cannot be told", fix)]
    places = [found[0] for caption in captions if (found := trigger_places(caption, trigger))]
    share = len(places) / len(captions)
    text = f"{trigger} stands in {len(places)} of {counted(len(captions), 'caption')}"
    if other := sum(other_capitals(caption, trigger) for caption in captions):
        text += f", in {other} more with other capitals, which are other tokens"
    if share == 1:
        return [Finding("trigger", "good", text), _places(places)]
    verdict = "warning" if share >= TRIGGER_SHARE else "bad"
    fix = f"Write {trigger} into every caption, always spelled the same"
    if spelling_signs(trigger):
        fix = "Choose a plain word as trigger first, then write it into every caption, always spelled the same"
    return [Finding("trigger", verdict, text, fix), *([_places(places)] if places else [])]


def spelling_finding(trigger: str) -> Finding:
    """What no tokenizer is needed for: characters in the trigger that a plain word does not have."""
    signs = spelling_signs(trigger)
    if not signs:
        text = f"{trigger} has no brackets, and no digits between its letters"
        return Finding(SPELLING, "good", text)
    return Finding(
        SPELLING,
        "warning",
        f"{trigger} has {' and '.join(signs)}: text encoders cut such a word into many pieces",
        "Take a short plain word, for example MERMAID and not [m3rm41dtr4nf0rm4t10n]; Tandem Trigger Check shows "
        "the pieces and names some",
    )


def _places(places: list[int]) -> Finding:
    counted = Counter(places)
    most = ", ".join(f"{place} ({n})" for place, n in counted.most_common(SHOWN))
    many = f"{len(counted)} different places" if len(counted) > 1 else "one place"
    text = f"The trigger begins at {many}; word (captions): {most}"
    if len(counted) <= GOOD_PLACES:
        return Finding("places", "good", text)
    return Finding("places", "warning", text, f"{TEMPLATE_FIX}: the trigger at one place in all")


def shapes_finding(shapes: tuple[Shape, ...], captions: int) -> Finding:
    """How many sentences the captions are, words in slots aside."""
    count = len(shapes)
    at_least = " or more" if count == MOST_SHAPES else ""
    those = counted(captions, "caption has", "captions have")
    text = f"{those} {count}{at_least} sentence shape{'s' * (count != 1)}"
    if count == 1 or (count <= GOOD_SHAPES and captions >= CAPTIONS_PER_SHAPE * count):
        return Finding("shapes", "good", text)
    # Bad where most captions have a shape of their own.
    verdict = "bad" if 2 * count > captions + 1 or at_least else "warning"
    return Finding("shapes", verdict, text, f"{TEMPLATE_FIX}: one rigid sentence, or two or three")


def duplicates_findings(captions: list[str], shapes: tuple[Shape, ...]) -> list[Finding]:
    """Exact: the same text on several clips, as a template gives it; suspicious only among many shapes.
    Spelling: the same words with other capitals or punctuation, which are other tokens. Near: a few words
    differ, expected of a template too.
    """
    alike = shapes_finding(shapes, len(captions)).verdict == "good"
    return [*_copies_findings(captions, alike=alike), near_finding(captions, alike=alike)]


def near_finding(captions: list[str], *, alike: bool) -> Finding:
    """Captions that are nearly another one; only suspicious where the captions are not `alike`, of few shapes."""
    if alike:
        return Finding(
            "near", "good", "Captions are alike by their shape, as a template makes them"
        )
    pairs = near_pairs([folded(caption) for caption in captions])
    if not pairs:
        return Finding("near", "good", "No two captions are nearly the same")
    count = len({index for pair in pairs for index in pair})
    first, second = (captions[index] for index in pairs[0])
    return Finding(
        "near",
        "warning",
        f"{count} captions are nearly another one, for example: {shortened(first)!r} and {shortened(second)!r}",
        f"Look whether they are one clip cut twice; if not: {TEMPLATE_FIX}",
    )


def regularisation_findings(dataset: Dataset) -> list[Finding]:
    """How many clips keep what the model knows, and whether a caption of theirs has the trigger."""
    clips = [clip for clip in dataset.clips if clip.regularisation]
    trigger = dataset.trigger.strip()
    if not clips:
        return []
    names = clip_names(dataset)
    need = counted(
        len(clips), "regularisation clip, which needs", "regularisation clips, which need"
    )
    text = f"{need} no trigger"
    wrong = [names[clip] for clip in clips if trigger and trigger_places(clip.caption, trigger)]
    if not wrong:
        return [Finding("regularisation", "good", text)]
    text += f"; {counted(len(wrong), 'has', 'have')} {trigger} in the caption: {_named(wrong)}"
    fix = f"Take {trigger} out of them: they show what it does not mean"
    return [Finding("regularisation", "bad", text, fix)]


def _copies_findings(captions: list[str], *, alike: bool) -> list[Finding]:
    exact = Counter(captions)
    copies = [n for n in exact.values() if n > 1]
    text = _copies(copies) if copies else "No caption is a copy"
    if copies and not alike:
        fix = "Among captions of many shapes this is often a copy by mistake: look at them"
        found = Finding("duplicates", "warning", text, fix)
    else:
        note = ", as a template gives it" if copies else ""
        found = Finding("duplicates", "good", f"{text}{note}")
    spellings = Counter(folded(caption) for caption in exact)
    near = sum(n for n in spellings.values() if n > 1)
    if not near:
        return [
            found,
            Finding("spelling", "good", "No two texts differ by capitals or points alone"),
        ]
    text = f"{near} texts differ from another by capitals or punctuation alone: other tokens"
    return [found, Finding("spelling", "warning", text, "Spell them the same")]


def shortened(text: str, letters: int = SHOWN_LETTERS) -> str:
    """The beginning of a text that is too long for a line."""
    return text if len(text) <= letters else f"{text[:letters]} ..."


def clip_names(dataset: Dataset) -> dict[Clip, str]:
    """What each clip is called: as short as tells it from clips of other files, and where it begins in its file."""
    names = path_names((clip.path, clip.root or dataset.folder) for clip in dataset.clips)
    return {clip: names[clip.path] + clip.name[len(clip.path.name) :] for clip in dataset.clips}


def _named(names: list[str]) -> str:
    return named(names, SHOWN)


def _copies(counts: list[int]) -> str:
    """`2 texts on 8 clips each`."""
    low, high = min(counts), max(counts)
    each = f"{low}" if low == high else f"{low}-{high}"
    return f"Copies: {counted(len(counts), 'text')} on {each} clips{' each' * (len(counts) > 1)}"
