"""Pictures of computation graphs: ``gpugrad.viz.graph(loss)`` shows itself in a notebook.

``.source`` is the text for Graphviz and needs nothing installed. Pictures are drawn by Graphviz: its program ``dot``,
and the Python package ``graphviz`` that calls it (the extra ``viz``).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpugrad.files import atomic_path
from gpugrad.tensor import Tensor
from gpugrad.value import Value
from gpugrad.viz.drawing import Drawing
from gpugrad.viz.reading import read_tensors, read_values

__all__ = ["Graph", "graph"]

_FILLS = {"input": "#d7ecd9", "constant": "#eef1f3", "op": "#dbe9f6", "output": "#fbe3c8"}
_DIRECTIONS = ("TB", "BT", "LR", "RL")
_TEXT_LINES = 40  # of the graph printed as text; more are counted
_NEEDED = (
    "pictures need the Python package graphviz (pip install graphviz) and Graphviz's program dot (apt, brew or conda "
    "install graphviz)"
)


class Graph:
    """A drawn graph. ``source`` is its text in Graphviz's DOT language."""

    def __init__(self, drawing: Drawing, rankdir: str) -> None:
        self._drawing = drawing
        self.source = _dot(drawing, rankdir)

    def svg(self) -> str:
        """The picture as SVG text. Raises RuntimeError if Graphviz is not installed or fails."""
        return self._drawn("svg", "svg").decode("utf-8")

    def _drawn(self, name: str, form: str) -> bytes:
        missing = _missing()
        if missing:
            raise RuntimeError(f"{name}: {missing}; .source and .save('graph.dot') work without")
        import graphviz

        try:
            return graphviz.pipe("dot", form, self.source.encode("utf-8"), quiet=True)
        except graphviz.CalledProcessError as error:
            said = (error.stderr or b"").decode("utf-8", "replace").strip()
            raise RuntimeError(f"{name}: dot failed with status {error.returncode}: {said}") from None

    def _repr_svg_(self) -> str | None:
        return None if _missing() else self.svg()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to ``path``: .svg, .png or .pdf, or, for names that end in .dot or .gv, the source.

        Returns the path. Raises ValueError for other endings, RuntimeError if Graphviz is not installed or fails."""
        target = Path(path)
        if target.suffix in (".dot", ".gv"):
            content = self.source.encode("utf-8")
        elif target.suffix in (".svg", ".png", ".pdf"):
            content = self._drawn("save", target.suffix[1:])
        else:
            raise ValueError(f"save: {target} must end in .svg, .png, .pdf, .dot or .gv")
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
        return target

    def __repr__(self) -> str:
        """A line for each box: its number, what is in it, and the numbers of the boxes it uses."""
        boxes = self._drawing.boxes
        uses: list[list[int]] = [[] for _ in boxes]
        for start, end in self._drawing.arrows:
            uses[end].append(start)
        lines = [f"graph of {len(boxes)} boxes and {len(self._drawing.arrows)} arrows"]
        for i, box in enumerate(boxes[:_TEXT_LINES]):
            of = f"  <- {', '.join(map(str, uses[i]))}" if uses[i] else ""
            lines.append(f"{i:4}  {'  '.join(line.strip() for line in box.lines)}{of}")
        if len(boxes) > _TEXT_LINES:
            lines.append(f"      and {len(boxes) - _TEXT_LINES} more")
        missing = _missing()
        return "\n".join([*lines, missing] if missing else lines)


def _missing() -> str | None:
    """What to install before a picture can be drawn; None if all is there."""
    package, program = importlib.util.find_spec("graphviz") is not None, shutil.which("dot") is not None
    if package and program:
        return None
    return f"{_NEEDED}; {'the program is' if package else 'the package is' if program else 'both are'} missing"


def graph(output: Any, params: Mapping[str, Any] | None = None, *, rankdir: str = "TB", max_elements: int = 6) -> Graph:
    """The graph that computed ``output``: a tensor, a :class:`gpugrad.Value`, or a list of either.

    Every operation is a box with its name and the shape and dtype of its result; every input that wants a
    gradient one with its gradient, if there is one. Values are shown of tensors of up to ``max_elements`` elements
    as far as the graph holds them: it keeps what a derivative needs and nothing else, and after ``backward()``
    only inputs and outputs. ``params`` names tensors or Values, for instance
    ``params=dict(model.named_parameters())``; of a named intermediate one the value and a retained gradient are
    shown too. ``rankdir`` is Graphviz's: TB, BT, LR or RL. Raises TypeError for outputs of other kinds."""
    if rankdir not in _DIRECTIONS:
        raise ValueError(f"graph: rankdir must be one of {', '.join(_DIRECTIONS)}, not {rankdir!r}")
    outputs = list(output) if isinstance(output, (list, tuple)) else [output]
    names = dict(params or {})
    for read, kind in ((read_tensors, Tensor), (read_values, Value)):
        if outputs and all(isinstance(x, kind) for x in outputs):
            for name, x in names.items():
                if not isinstance(x, kind):
                    raise TypeError(f"graph: params[{name!r}] must be a {kind.__name__}, not {type(x).__name__}")
            return Graph(read(outputs, names, max_elements), rankdir)
    kinds = ", ".join(sorted({type(x).__name__ for x in outputs})) or "an empty list"
    raise TypeError(f"graph: expected a Tensor, a Value or a list of one of them, got {kinds}")


def _dot(drawing: Drawing, rankdir: str) -> str:
    lines = [
        "digraph {",
        f"  graph [rankdir={rankdir}, bgcolor=transparent]",
        '  node [shape=box, style="rounded,filled", color="#5b6770", fontname=monospace, fontsize=10, '
        'height=0.3, margin="0.13,0.09"]',
        '  edge [color="#5b6770", arrowsize=0.7]',
    ]
    for i, box in enumerate(drawing.boxes):
        label = "".join(_escape(line) + "\\l" for line in box.lines)  # \\l: a line, set to the left
        lines.append(f'  n{i} [label="{label}", fillcolor="{_FILLS[box.kind]}"]')
    lines += [f"  n{start} -> n{end}" for start, end in drawing.arrows]
    return "\n".join([*lines, "}", ""])


def _escape(text: str) -> str:
    for character, written in (("\\", "\\\\"), ('"', '\\"'), ("&", "&amp;"), ("\n", " ")):
        text = text.replace(character, written)
    return text
