"""A plain picture of a layered graph, for machines without Graphviz.

After Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures"
(1981): boxes go to layers, arrows across several layers get a waypoint on each, the order within a layer follows the
mean position of the neighbours, and so do the coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from gpugrad.viz.drawing import Drawing

_FONT, _CHARACTER, _LINE = 11, 6.7, 14  # pixels: of a monospace font, of one of its characters, from line to line
_PADDING, _BESIDE, _BETWEEN = 8, 18, 38  # within a box, beside boxes, between layers
_SWEEPS = 8
_INK, _LINES = "#22303c", "#5b6770"


class _Layers:
    """The points of a drawing (its boxes, then waypoints) in layers, and where they lie."""

    def __init__(self, drawing: Drawing, across: list[float]) -> None:
        self.across = list(across)  # extent of each point within its layer
        rank = _ranks(drawing)
        self.layers: list[list[int]] = [[] for _ in range(max(rank, default=-1) + 1)]
        for i, r in enumerate(rank):
            self.layers[r].append(i)
        self.before: list[list[int]] = [[] for _ in rank]
        self.after: list[list[int]] = [[] for _ in rank]
        self.paths = [self._path(start, end, rank) for start, end in drawing.arrows]
        self._sort()
        self.position = self._place()

    def _path(self, start: int, end: int, rank: list[int]) -> list[int]:
        path = [start]
        for r in range(rank[start] + 1, rank[end]):
            self.layers[r].append(len(self.across))
            path.append(len(self.across))
            self.across.append(2.0)
            self.before.append([])
            self.after.append([])
        path.append(end)
        for a, b in zip(path, path[1:], strict=False):
            self.after[a].append(b)
            self.before[b].append(a)
        return path

    def _sort(self) -> None:
        order = {p: float(i) for layer in self.layers for i, p in enumerate(layer)}
        for sweep in range(_SWEEPS):
            down = sweep % 2 == 0
            neighbours = self.before if down else self.after
            for layer in self.layers if down else self.layers[::-1]:
                layer.sort(key=lambda p: _mean([order[q] for q in neighbours[p]], order[p]))
                order.update((p, float(i)) for i, p in enumerate(layer))

    def _place(self) -> list[float]:
        position = [0.0] * len(self.across)
        for layer in self.layers:
            self._spread(layer, [0.0] * len(layer), position)
        for sweep in range(4 * _SWEEPS):
            for layer in self.layers if sweep % 2 == 0 else self.layers[::-1]:
                wanted = [_mean([position[q] for q in self.before[p] + self.after[p]], position[p]) for p in layer]
                self._spread(layer, wanted, position)
        left = min((position[p] - self.across[p] / 2 for p in range(len(position))), default=0.0)
        return [x - left for x in position]

    def _spread(self, layer: list[int], wanted: list[float], position: list[float]) -> None:
        """As near to ``wanted`` as the order and the gaps allow: those that would touch move as one group."""
        groups: list[tuple[float, int, list[int]]] = []  # sum of (wanted - offset), members' count, members
        offset = 0.0
        offsets: dict[int, float] = {}
        for k, p in enumerate(layer):
            if k:
                offset += (self.across[layer[k - 1]] + self.across[p]) / 2 + _BESIDE
            offsets[p] = offset
            groups.append((wanted[k] - offset, 1, [p]))
            while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
                total, count, members = groups.pop()
                before = groups.pop()
                groups.append((before[0] + total, before[1] + count, before[2] + members))
        for total, count, members in groups:
            for p in members:
                position[p] = total / count + offsets[p]


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _ranks(drawing: Drawing) -> list[int]:
    """A layer for each box: below all it uses, and as near to its first user as that allows."""
    uses: list[list[int]] = [[] for _ in drawing.boxes]
    users: list[list[int]] = [[] for _ in drawing.boxes]
    for start, end in drawing.arrows:
        uses[end].append(start)
        users[start].append(end)
    rank = [0] * len(drawing.boxes)
    waiting = [len(u) for u in uses]
    ready = [i for i, n in enumerate(waiting) if not n]
    order = []
    while ready:
        i = ready.pop()
        order.append(i)
        for j in users[i]:
            rank[j] = max(rank[j], rank[i] + 1)
            waiting[j] -= 1
            if not waiting[j]:
                ready.append(j)
    for i in reversed(order):  # users before what they use
        if users[i]:
            rank[i] = min(rank[j] for j in users[i]) - 1
    return rank


def to_svg(drawing: Drawing, fills: Mapping[str, str], rankdir: str) -> str:
    """SVG text of ``drawing``; ``fills`` gives a colour to each kind of box, ``rankdir`` is as Graphviz has it."""
    sideways, backwards = rankdir in ("LR", "RL"), rankdir in ("BT", "RL")
    widths = [max((len(t) for t in b.lines), default=0) * _CHARACTER + 2 * _PADDING for b in drawing.boxes]
    heights = [float(max(1, len(b.lines)) * _LINE + _PADDING) for b in drawing.boxes]
    across, along = (heights, widths) if sideways else (widths, heights)
    layers = _Layers(drawing, across)
    along = along + [0.0] * (len(layers.across) - len(along))
    middles, thickness, total = {}, {}, 0.0
    for layer in layers.layers:
        deep = max(along[p] for p in layer)
        for p in layer:
            middles[p], thickness[p] = total + deep / 2, deep
        total += deep + _BETWEEN
    total -= _BETWEEN if layers.layers else 0.0
    wide = max((layers.position[p] + layers.across[p] / 2 for p in middles), default=0.0)

    def at(depth: float, side: float) -> tuple[float, float]:
        depth = total - depth if backwards else depth
        return (depth, side) if sideways else (side, depth)

    width, height = (total, wide) if sideways else (wide, total)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 8:.0f}" height="{height + 8:.0f}" '
        f'viewBox="-4 -4 {width + 8:.0f} {height + 8:.0f}" font-family="monospace" font-size="{_FONT}" fill="{_INK}">',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0.5 L8,4 L0,7.5 z" fill="{_LINES}"/></marker></defs>',
    ]
    for path in layers.paths:
        points = []
        for k, p in enumerate(path):
            half = along[p] / 2 if k in (0, len(path) - 1) else 0.0
            points += [middles[p] + half] if k == 0 else [middles[p] - half]
        parts.append(_arrow([at(d, layers.position[p]) for d, p in zip(points, path, strict=True)], sideways))
    for i, box in enumerate(drawing.boxes):
        x, y = at(middles[i], layers.position[i])
        parts.append(
            f'<rect x="{x - widths[i] / 2:.1f}" y="{y - heights[i] / 2:.1f}" width="{widths[i]:.1f}" '
            f'height="{heights[i]:.1f}" rx="5" fill="{fills[box.kind]}" stroke="{_LINES}"/>'
        )
        left = x - max(len(line) for line in box.lines) * _CHARACTER / 2 if box.lines else x
        top = y - (len(box.lines) - 1) * _LINE / 2 + _FONT * 0.36
        for k, line in enumerate(box.lines):
            parts.append(f'<text x="{left:.1f}" y="{top + k * _LINE:.1f}" xml:space="preserve">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _arrow(points: list[tuple[float, float]], sideways: bool) -> str:
    """A curve through ``points`` that leaves and enters each along the direction of the layers."""
    (x, y), rest = points[0], points[1:]
    d = [f"M{x:.1f},{y:.1f}"]
    for u, v in rest:
        mx, my = (x + u) / 2, (y + v) / 2
        bend = f"{mx:.1f},{y:.1f} {mx:.1f},{v:.1f}" if sideways else f"{x:.1f},{my:.1f} {u:.1f},{my:.1f}"
        d.append(f"C{bend} {u:.1f},{v:.1f}")
        x, y = u, v
    return f'<path d="{" ".join(d)}" fill="none" stroke="{_LINES}" marker-end="url(#head)"/>'
