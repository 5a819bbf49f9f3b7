"""Where a program's own buffers lie: one piece of memory for all, used again where lifetimes allow it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

ALIGNMENT = 64


class Lifetime(NamedTuple):
    """A buffer of ``nbytes`` that is needed from part ``first`` of a program to part ``last``, both included."""

    first: int
    last: int
    nbytes: int


def plan(lifetimes: Sequence[Lifetime], alignment: int = ALIGNMENT) -> tuple[list[int], int]:
    """Offsets, each a multiple of ``alignment``, and the size of the whole. Two buffers share bytes only if no part of
    the program needs both. Buffers are placed in order of time, each into the smallest gap that takes it."""
    offsets = [0] * len(lifetimes)
    gaps: list[tuple[int, int]] = []  # (offset, size), by offset
    ending: list[tuple[int, int, int]] = []  # (last, offset, size)
    end = 0
    for i in sorted(range(len(lifetimes)), key=lambda i: (lifetimes[i].first, -lifetimes[i].nbytes)):
        first, last, nbytes = lifetimes[i]
        while ending and ending[0][0] < first:
            _, offset, size = heapq.heappop(ending)
            _release(gaps, offset, size)
        size = max(alignment, -(-nbytes // alignment) * alignment)
        fitting = [k for k, (_, n) in enumerate(gaps) if n >= size]
        if fitting:
            k = min(fitting, key=lambda k: gaps[k][1])
            offset, n = gaps.pop(k)
            if n > size:
                gaps.insert(k, (offset + size, n - size))
        elif gaps and sum(gaps[-1]) == end:  # the gap at the end grows
            offset = gaps.pop()[0]
            end = offset + size
        else:
            offset, end = end, end + size
        offsets[i] = offset
        heapq.heappush(ending, (last, offset, size))
    return offsets, end


def _release(gaps: list[tuple[int, int]], offset: int, size: int) -> None:
    """Put a block among the gaps, joined with its neighbours."""
    k = 0
    while k < len(gaps) and gaps[k][0] < offset:
        k += 1
    if k < len(gaps) and offset + size == gaps[k][0]:
        size += gaps.pop(k)[1]
    if k and sum(gaps[k - 1]) == offset:
        offset, before = gaps[k - 1][0], gaps[k - 1][1]
        gaps[k - 1] = (offset, before + size)
    else:
        gaps.insert(k, (offset, size))
