"""Pictures of computation graphs: ``gpugrad.viz.graph(loss)`` shows itself in a notebook.

The text for Graphviz is ``.source``; ``.svg()`` uses Graphviz's ``dot`` where it is installed, and else a plain
layout of our own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpugrad.files import atomic_path
from gpugrad.tensor import Tensor
from gpugrad.value import Value
from gpugrad.viz.drawing import Drawing
from gpugrad.viz.layout import to_svg
from gpugrad.viz.reading import read_tensors, read_values

__all__ = ["Graph", "graph"]

_FILLS = {"input": "#d7ecd9", "constant": "#eef1f3", "op": "#dbe9f6", "output": "#fbe3c8"}
_DIRECTIONS = ("TB", "BT", "LR", "RL")


class Graph:
    """A drawn graph. ``source`` is its text in Graphviz's DOT language."""

    def __init__(self, drawing: Drawing, rankdir: str) -> None:
        self._drawing = drawing
        self._rankdir = rankdir
        self.source = _dot(drawing, rankdir)

    def svg(self) -> str:
        """The picture as SVG text. Raises RuntimeError if an installed ``dot`` fails."""
        program = shutil.which("dot")
        if program is None:
            return to_svg(self._drawing, _FILLS, self._rankdir)
        done = subprocess.run([program, "-Tsvg"], input=self.source, capture_output=True, text=True, encoding="utf-8")
        if done.returncode:
            raise RuntimeError(f"svg: {program} failed with status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _repr_svg_(self) -> str:
        return self.svg()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to ``path``: SVG, or for names that end in ``.dot`` or ``.gv`` the source. Returns the path.

        Raises ValueError for other endings."""
        target = Path(path)
        if target.suffix in (".dot", ".gv"):
            text = self.source
        elif target.suffix == ".svg":
            text = self.svg()
        else:
            raise ValueError(f"save: {target} must end in .svg, .dot or .gv (Graphviz makes other formats of a .dot)")
        with atomic_path(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return target

    def __repr__(self) -> str:
        return f"<graph of {len(self._drawing.boxes)} boxes and {len(self._drawing.arrows)} arrows>"


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
        '  node [shape=box, style="rounded,filled", color="#5b6770", fontname=monospace, fontsize=10]',
        '  edge [color="#5b6770", arrowsize=0.7]',
    ]
    for i, box in enumerate(drawing.boxes):
        label = "".join(_escape(line) + "\\l" for line in box.lines)  # \\l: a line, set to the left
        lines.append(f'  n{i} [label="{label}", fillcolor="{_FILLS[box.kind]}"]')
    lines += [f"  n{start} -> n{end}" for start, end in drawing.arrows]
    return "\n".join([*lines, "}", ""])


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
