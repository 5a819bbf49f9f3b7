"""Which programs are drawn, as a hypothesis strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.fuzz import lines_of_arithmetic, lines_of_graphs, lines_of_layout
from tests.fuzz.builder import Builder

#: kinds of lines, each as often as its weight says
KINDS: list[Callable[[Builder], Any]] = [
    kind
    for table in (lines_of_arithmetic.KINDS, lines_of_layout.KINDS, lines_of_graphs.KINDS)
    for kind, weight in table.items()
    for _ in range(weight)
]
_NUMBERS: dict[int, Any] = {}


def build(choose: Callable[[int], int], narrow: bool = False, most: int = 14) -> list[str]:
    """A program of up to about ``most`` lines, made of the numbers that ``choose(n)`` draws below n."""
    b = Builder(choose, narrow)
    for _ in range(1 + choose(3)):
        lines_of_arithmetic.leaf(b)
    for _ in range(2 + choose(most - 2)):
        if b.exact:
            KINDS[choose(len(KINDS))](b)
        else:
            lines_of_arithmetic.leaf(b)
    lines_of_graphs.final(b)
    return b.lines


@st.composite
def programs(draw: Any, narrow: bool = False, most: int = 14) -> list[str]:
    """Programs as lists of lines."""

    def choose(n: int) -> int:
        numbers = _NUMBERS.get(n)
        if numbers is None:
            numbers = _NUMBERS[n] = st.integers(0, n - 1)
        return draw(numbers)

    return build(choose, narrow, most)
