"""What is drawn: boxes with lines of text, and arrows between them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Box:
    """``kind``: input (wants a gradient), constant, op or output."""

    kind: str
    lines: list[str]


@dataclass
class Drawing:
    """``arrows`` are pairs of indices into ``boxes``, from what is used to what uses it."""

    boxes: list[Box] = field(default_factory=list)
    arrows: list[tuple[int, int]] = field(default_factory=list)

    def add(self, box: Box) -> int:
        """The index of ``box``, put at the end."""
        self.boxes.append(box)
        return len(self.boxes) - 1
