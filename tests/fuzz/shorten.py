"""Making a failing program small."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.fuzz.programs import NAME


def kind(verdict: str) -> str:
    """A verdict without its numbers and names: what tells one failure from another."""
    return re.sub(r"\d+", "", re.sub(r"[-\d.]+", "#", NAME.sub("v", verdict)))[:60]


def shorten(lines: list[str], judge: Callable[[list[str]], str | None]) -> list[str]:
    """The program without the lines that its failure does not need."""
    verdict = judge(lines)
    if verdict is None:
        return lines
    wanted = kind(verdict)
    smaller = True
    while smaller:
        smaller = False
        for k in reversed(range(len(lines))):
            fewer = lines[:k] + lines[k + 1 :]
            found = judge(fewer)
            if found is not None and kind(found) == wanted:
                lines, smaller = fewer, True
    return renumbered(lines)


def renumbered(lines: list[str]) -> list[str]:
    """With the tensors named v0, v1, ... in the order they appear."""
    names: dict[str, str] = {}
    return [NAME.sub(lambda m: names.setdefault(m.group(), f"v{len(names)}"), line) for line in lines]
