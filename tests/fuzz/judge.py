"""A program's verdict: run by gpugrad on each device and by PyTorch, what differs that should not?"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import gpugrad as gg
from tests.fuzz.compare import CHANGED, difference
from tests.fuzz.programs import Outcome, Runner, Unreadable

#: what PyTorch refuses and gpugrad defines, and the other way round; such lines are left out of a comparison
REFUSED_BY_PYTORCH = re.compile(
    r"This view is the output of a function that returns multiple views"
    r"|some elements of the input tensor and the written-to tensor refer to a single memory location"
    r"|A view was created in no_grad mode"
    r"|has been detached in-place"
    r"|a leaf Variable that requires grad is being used in an in-place operation"  # also of views whose base is none
    r"|ZeroTensors are immutable"  # of derivatives of derivatives that are 0
)
REFUSED_BY_GPUGRAD = re.compile(r"is expanded, several of its elements share|is a view and shares its base's graph")
#: rows that save an input where PyTorch happens to save a copy, or its result: changing it is an error here alone
STRICTER = re.compile(r"(matmul|cross_entropy_fused): .* was saved for backward and then changed in place")
#: whether a constant derivative has a graph, or one that is 0 exists
GRAPHLESS = re.compile(r"does not require grad|'NoneType' object has no attribute")
#: a part of a tensor is assigned to: through a view
PART_WRITTEN = re.compile(r"\] [-+*/]?= ")
#: of graphs walked twice: whether a node keeps values that are gone after the first walk is each library's own
WALKED = re.compile(r"already walked|through the graph a second time")


def verdict(lines: Sequence[str], devices: Sequence[str], torch: Any = None) -> str | None:
    """What is wrong in one sentence; None if nothing is. ``devices``: types to compare with the CPU; ``torch``: the
    module, to compare the CPU with it."""
    lines = list(lines)
    cpu = Runner(gg, "cpu").outcome(lines)
    for device in devices:
        if device == "cpu" or device == "pretend" and "float64" in "\n".join(lines):
            continue
        found = _compared(
            lines, cpu, ("cpu", device), lambda some, d=device: Runner(gg, d).outcome(some), _same_library
        )
        if found:
            return found
    if torch is None:
        return None
    return _compared(
        lines, cpu, ("gpugrad", "PyTorch"), lambda some: Runner(torch, "cpu").outcome(some), _other_library, torch
    )


def _same_library(mine: Exception | None, other: Exception | None) -> bool:
    """Whether one device may raise what another does not: a fused routine saves other values than its plain
    definition, and second derivatives through the two depend on other tensors."""
    text = str(mine or other)
    return bool(CHANGED.search(text) or WALKED.search(text) or GRAPHLESS.search(text))


def _other_library(mine: Exception | None, other: Exception | None) -> bool:
    if other is not None:
        return bool(REFUSED_BY_PYTORCH.search(str(other)) or WALKED.search(str(other)) or GRAPHLESS.search(str(other)))
    text = str(mine)
    return bool(
        REFUSED_BY_GPUGRAD.search(text) or WALKED.search(text) or STRICTER.match(text) or GRAPHLESS.search(text)
    )


def _compared(
    lines: list[str],
    left: Outcome,
    names: tuple[str, str],
    run: Callable[[list[str]], Outcome],
    allowed: Callable[[Exception | None, Exception | None], bool],
    torch: Any = None,
) -> str | None:
    """The difference of two outcomes, after leaving out lines at which one may raise alone."""
    while True:
        try:
            right = run(lines)
        except Unreadable:
            return None
        pairs = zip(left.errors, right.errors, strict=True)
        clash = next((k for k, (a, b) in enumerate(pairs) if (a is None) != (b is None)), None)
        if clash is None:
            return difference(lines, left, right, names)
        mine, other = left.errors[clash], right.errors[clash]
        if allowed(mine, other):
            lines = lines[:clash] + lines[clash + 1 :]
            left = Runner(gg, "cpu").outcome(lines)
        elif torch is not None and other is not None and CHANGED.search(str(other)):
            # A value that gpugrad need not save, or saved a copy of: then its gradients are those of PyTorch where that
            # copies what is about to change.
            views = left.shared or any(PART_WRITTEN.search(line) for line in lines)
            if views or any(e is not None and CHANGED.search(str(e)) for e in left.errors):
                return (
                    None  # the copies are not right for views, and gpugrad may refuse another line for the same reason
                )
            with torch.autograd.graph.allow_mutation_on_saved_tensors():
                right = run(lines)
            return difference(lines, left, right, ("gpugrad", "PyTorch saving copies"))
        else:
            return difference(lines, left, right, names)
