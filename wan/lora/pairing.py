"""Which two files are one LoRA: the high-noise and the low-noise half of a pair.

Evidence, the best first: what Tandem's trainer wrote into both files (one run, and one step or names that are equal but
for the expert: experts may be best at different steps); such names alone; folders that are. What is merely alike is
shown and never taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

from .files import tandem_metadata
from .pair_names import SUFFIXES, Reading, Side, folder_of, readings

MetadataOf = Callable[[str], Mapping[str, str]]
Verdict = Literal["pair", "none", "ask"]

# How good the evidence is; ASK is not enough to take a file.
PUBLISHED, METADATA_BESIDE, METADATA, NAMES, FOLDERS, ASK, NOTHING = range(7)
SERIES = 20
"""So many files that differ in a number alone are a series, not candidates."""
Like = tuple[str, int, tuple[str, str]]
"""A file, how good the evidence is, and the words that differ."""
SIDE_OF: dict[object, Side] = {"high_noise": "high", "low_noise": "low"}


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """What is known of a file's other half."""

    verdict: Verdict
    reason: str
    high: str = ""
    low: str = ""
    """The two files, when the verdict is `pair`."""
    candidates: tuple[str, ...] = ()
    """The files that a person can choose from, when the verdict is `ask`."""

    def side(self, name: str) -> Side:
        """Which half of the pair `name` is."""
        return "high" if name == self.high else "low"

    def partner(self, name: str) -> str:
        """The other half of the pair."""
        return self.low if name == self.high else self.high


def find_pair(name: str, names: Iterable[str], metadata_of: MetadataOf) -> Pairing:
    """The other half of `name` among `names`, or why there is none, or what could be.

    `metadata_of` gives the metadata of a file's header. For many files `PairFinder` reads the names once.
    """
    return PairFinder(names, metadata_of).find(name)


class Mark(NamedTuple):
    """What our trainer wrote into a file."""

    pair_id: object
    step: object
    side: Side | None


class Best(NamedTuple):
    """The best evidence that a file has, and the files it points at."""

    level: int
    files: frozenset[str]
    words: tuple[str, str]
    contradicted: str
    """A file that is named like the other half, but whose metadata says that it is not."""


class PairFinder:
    """The pairs of one list of names. Symmetric, and no file is in two pairs: both halves must be each other's best."""

    def __init__(self, names: Iterable[str], metadata_of: MetadataOf) -> None:
        self._names = tuple(sorted(n for n in set(names) if n.lower().endswith(SUFFIXES)))
        self._known = frozenset(self._names)
        self._metadata_of = metadata_of
        self._marks: dict[str, Mark] = {}
        self._bests: dict[str, Best] = {}

    def find(self, name: str) -> Pairing:
        """What is known of the other half of `name`, which is one of the names."""
        if name not in self._known:
            return Pairing(verdict="none", reason="it is not in the list of safetensors files")
        best = self._best(name)
        if best.level == NOTHING:
            return Pairing(verdict="none", reason=_why_none(best))
        files = self._mutual(name)
        if not files:
            other = min(best.files)
            taken = min(self._best(other).files)
            return Pairing(verdict="none", reason=f"{other} belongs with {taken}")
        if best.level < ASK and len(files) == 1 and self._mutual(files[0]) == [name]:
            high, low = (name, files[0]) if self._is_high(name, files[0]) else (files[0], name)
            return Pairing(verdict="pair", reason=self._why(high, low, best), high=high, low=low)
        several = (
            "several files fit" if best.level < ASK else "the names are alike, but not certain"
        )
        return Pairing(verdict="ask", reason=several, candidates=tuple(files))

    def _mutual(self, name: str) -> list[str]:
        return sorted(f for f in self._best(name).files if name in self._best(f).files)

    def _best(self, name: str) -> Best:
        if name not in self._bests:
            self._bests[name] = self._look(name)
        return self._bests[name]

    def _look(self, name: str) -> Best:
        found: dict[int, set[str]] = defaultdict(set)
        words: dict[int, tuple[str, str]] = {}
        contradicted = ""
        for other in self._same_run(name):
            beside = folder_of(other) == folder_of(name)
            found[METADATA_BESIDE if beside else METADATA].add(other)
        for other, level, _ in self._named_equal(name):
            if level == NAMES and self._published_with(name, other):
                found[PUBLISHED].add(other)
        for named_like in (self._named_equal, self._named_alike):
            for other, level, said in () if found else named_like(name):
                if self._contradict(name, other):
                    contradicted = other
                else:
                    found[level].add(other)
                    words.setdefault(level, said)
        level = min(found, default=NOTHING)
        return Best(level, frozenset(found[level]), words.get(level, ("", "")), contradicted)

    def _same_run(self, name: str) -> list[str]:
        mark = self._mark(name)
        if not mark.pair_id or mark.side is None:
            return []
        return [
            other
            for other in self._by_run.get((str(mark.pair_id), str(mark.step)), ())
            if self._mark(other).side == _opposite(mark.side)
        ]

    def _published_with(self, name: str, other: str) -> bool:
        """Whether a run has put the two side by side under one name, each at its own step."""
        one, two = self._mark(name), self._mark(other)
        same_run = bool(one.pair_id) and one.pair_id == two.pair_id
        halves = one.side is not None and two.side == _opposite(one.side)
        return same_run and halves and one.side in _sides(name) and two.side in _sides(other)

    @cached_property
    def _by_run(self) -> dict[tuple[str, str], list[str]]:
        """Files by run and step. It reads every header, and only for files that our trainer wrote."""
        runs: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name in self._names:
            mark = self._mark(name)
            if mark.pair_id:
                runs[str(mark.pair_id), str(mark.step)].append(name)
        return runs

    def _named_equal(self, name: str) -> Iterable[Like]:
        """Files whose name is equal but for the word of the other expert."""
        index = _index(self._names)
        for reading in readings(name):
            sure = (FOLDERS if reading.in_folder else NAMES) if reading.certain else ASK
            for other in index.exact.get((reading.exact, _opposite(reading.side)), ()):
                yield other, sure, reading.words

    def _named_alike(self, name: str) -> Iterable[Like]:
        """Files that a person may think of; of a long series none stands out."""
        index = _index(self._names)
        for reading in readings(name):
            others = index.alike.get((reading.alike, _opposite(reading.side)), ())
            if reading.alike and len(others) <= SERIES:
                yield from ((other, ASK, reading.words) for other in others)

    def _contradict(self, name: str, other: str) -> bool:
        """Whether metadata denies what the names say."""
        one, two = self._mark(name), self._mark(other)
        if one.side is not None and one.side == two.side:
            return True
        if any(mark.side and mark.side not in _sides(n) for mark, n in ((one, name), (two, other))):
            return True
        return bool(one.pair_id and two.pair_id) and one[:2] != two[:2]

    def _mark(self, name: str) -> Mark:
        if name not in self._marks:
            entry = tandem_metadata(self._metadata_of(name))
            side = SIDE_OF.get(entry.get("expert"))
            self._marks[name] = Mark(entry.get("pair_id"), entry.get("step"), side)
        return self._marks[name]

    def _is_high(self, name: str, other: str) -> bool:
        if self._best(name).level <= METADATA:
            return self._mark(name).side == "high"
        shared = {(r.exact, r.side) for r in readings(other)}
        return any(r.side == "high" and (r.exact, "low") in shared for r in readings(name))

    def _why(self, high: str, low: str, best: Best) -> str:
        if best.level <= METADATA:
            return (
                f"their metadata names one run{_steps(self._mark(high).step, self._mark(low).step)}"
            )
        what = "names" if best.level == NAMES else "folders"
        return f"their {what} differ in {' and '.join(best.words)} alone"


class _Index(NamedTuple):
    exact: Mapping[tuple[str, Side], list[str]]
    alike: Mapping[tuple[str, Side], list[str]]


@lru_cache(maxsize=4)
def _index(names: tuple[str, ...]) -> _Index:
    exact: dict[tuple[str, Side], list[str]] = defaultdict(list)
    alike: dict[tuple[str, Side], list[str]] = defaultdict(list)
    for name in names:
        for reading in readings(name):
            exact[reading.exact, reading.side].append(name)
            if reading.alike:
                alike[reading.alike, reading.side].append(name)
    return _Index(exact, alike)


def _steps(high: object, low: object) -> str:
    if high is None or low is None:
        return ""
    return f", step {high}" if high == low else f", high noise at step {high}, low noise at {low}"


def _opposite(side: Side) -> Side:
    return "low" if side == "high" else "high"


def _sides(name: str) -> set[Side]:
    found: tuple[Reading, ...] = readings(name)
    return {reading.side for reading in found}


def _why_none(best: Best) -> str:
    if best.contradicted:
        return (
            f"{best.contradicted} is named like its other half, but its metadata says another run, "
            "step or expert"
        )
    return "no file is named like its other half"
