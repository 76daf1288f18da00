"""What a LoRA did to a network: the answer that every loaded file owes its user."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..families import Role
from .keys import Leftover, MatchedLora

# Wan 2.1's image encoder layers, which 2.2 has not: a 2.1 I2V LoRA on 2.2 misses them and works.
HARMLESS = ("k_img", "v_img", "norm_k_img", "img_emb")


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """One file on one expert."""

    file: str
    expert: Role
    reason: str
    """Why this expert."""
    strength: float
    layout: str
    matched: int
    total: int
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    leftovers: tuple[Leftover, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def fatal(self) -> tuple[Leftover, ...]:
        return tuple(
            left for left in self.leftovers if not any(word in left.key for word in HARMLESS)
        )

    @property
    def whole(self) -> bool:
        return self.matched > 0 and not self.fatal

    def text(self) -> str:
        """A paragraph: the verdict first, then what was left over, grouped by cause."""
        rank = "/".join(map(str, self.ranks)) or "-"
        alpha = "/".join(f"{a:g}" for a in self.alphas) or "-"
        lines = [
            f"{self.file} -> {self.expert} ({self.reason})",
            f"  {self.matched} of {self.total} modules matched, rank {rank}, alpha {alpha}, "
            f"strength {self.strength:g}, keys {self.layout}",
        ]
        for (cause, detail), count in Counter(
            (left.cause, left.detail) for left in self.fatal
        ).items():
            example = next(
                left.key for left in self.fatal if (left.cause, left.detail) == (cause, detail)
            )
            lines.append(
                f"  {count} keys left over: {cause}{f' ({detail})' if detail else ''}, for example {example}"
            )
        lines += [f"  Warning: {warning}" for warning in self.warnings]
        if harmless := len(self.leftovers) - len(self.fatal):
            lines.append(
                f"  {harmless} keys of Wan 2.1's image encoder have no place here: harmless"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class LoadReport:
    """Every file of a stack on every expert it went to."""

    files: tuple[FileReport, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def matched(self) -> int:
        return sum(file.matched for file in self.files)

    @property
    def total(self) -> int:
        return sum(file.total for file in self.files)

    def text(self) -> str:
        """Readable as it stands; the sum comes first."""
        if not self.files:
            return "\n".join(["No LoRA was applied.", *self.notes])
        body = [file.text() for file in self.files]
        return "\n".join([f"{self.matched} of {self.total} modules matched.", *body, *self.notes])


def file_report(
    matched: MatchedLora,
    *,
    file: str,
    expert: Role,
    reason: str,
    strength: float,
    warnings: tuple[str, ...] = (),
) -> FileReport:
    """The report of one file that was held against one expert."""
    adapters = matched.adapters.values()
    return FileReport(
        file=file,
        expert=expert,
        reason=reason,
        strength=strength,
        layout=matched.layout,
        matched=len(matched.adapters),
        total=matched.num_modules,
        ranks=tuple(sorted({adapter.rank for adapter in adapters})),
        alphas=tuple(sorted({adapter.alpha for adapter in adapters})),
        leftovers=matched.leftovers,
        warnings=warnings,
    )
