"""Where the tokens of a video lie in the sequence that attention sees."""

from __future__ import annotations

from typing import NamedTuple


class TokenGrid(NamedTuple):
    """`frames` times `height` times `width` tokens, frame by frame and row by row, and others around them."""

    frames: int
    height: int
    width: int
    before: int = 0
    """Tokens before the grid, such as a reference frame: they see all and are seen by all."""
    after: int = 0

    @property
    def frame(self) -> int:
        """Tokens of a frame."""
        return self.height * self.width

    @property
    def video(self) -> int:
        """Tokens of all frames."""
        return self.frames * self.frame

    @property
    def tokens(self) -> int:
        """Of the whole sequence."""
        return self.before + self.video + self.after
