"""Making a failing program small."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tests.fuzz.programs import NAME

WEIGHED = re.compile(r"weigh\((v\d+(?:, v\d+)*)\)")


def kind(verdict: str) -> str:
    """A verdict without its numbers and names: what tells one failure from another."""
    plain = re.sub(r"v(, v)+", "v", NAME.sub("v", verdict))
    return re.sub(r"\d+", "", re.sub(r"[-\d.]+", "#", plain))[:60]


def shorten(lines: list[str], judge: Callable[[list[str]], str | None]) -> list[str]:
    """The program without the lines, and the tensors weighed together, that its failure does not need."""
    verdict = judge(lines)
    if verdict is None:
        return lines
    wanted = kind(verdict)
    smaller = True
    while smaller:
        smaller = False
        for fewer in _simpler(lines):
            found = judge(fewer)
            if found is not None and kind(found) == wanted:
                lines, smaller = fewer, True
                break
    return renumbered(lines)


def _simpler(lines: list[str]) -> Iterator[list[str]]:
    """The programs that lack one line, from the last on, and those that weigh one tensor less."""
    for k in reversed(range(len(lines))):
        yield lines[:k] + lines[k + 1 :]
    for k, line in enumerate(lines):
        weighed = WEIGHED.search(line)
        names = weighed[1].split(", ") if weighed else []
        for n in range(len(names) if len(names) > 1 else 0):
            rest = ", ".join(names[:n] + names[n + 1 :])
            yield [*lines[:k], line.replace(weighed[0], f"weigh({rest})"), *lines[k + 1 :]]


def renumbered(lines: list[str]) -> list[str]:
    """With the tensors named v0, v1, ... in the order they appear."""
    names: dict[str, str] = {}
    return [NAME.sub(lambda m: names.setdefault(m.group(), f"v{len(names)}"), line) for line in lines]
