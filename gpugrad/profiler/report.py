"""What was recorded, added up by operation: tables and Chrome traces."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gpugrad.devices import Device
from gpugrad.files import atomic_path
from gpugrad.profiler.peaks import peak
from gpugrad.profiler.recording import Event, Range


class Average:
    """All calls of one operation on one device, or all passes through one ``record_function`` block.

    ``key`` its name, ``count`` the calls, ``bytes`` and ``flops`` of all of them; times are microseconds. Of a block,
    the device's time is that of the operations inside, the host's from entering to leaving."""

    def __init__(self, key: str, device: Device | None, input_shapes: Any = None) -> None:
        self.key = key
        self.device = device  # None: a block
        self.input_shapes = input_shapes  # None unless grouped by them
        self.count = 0
        self.bytes = 0
        self.flops = 0
        self.cpu_time_total = 0.0
        self.device_time_total = 0.0

    def add(self, event: Event) -> None:
        self.count += 1
        self.cpu_time_total += event.cpu_time
        self.add_work(event)

    def add_work(self, event: Event) -> None:
        """What the device did for ``event``."""
        self.bytes += event.bytes
        self.flops += event.flops
        self.device_time_total += event.device_time

    @property
    def is_user_annotation(self) -> bool:
        """Whether this is a block, whose operations have rows of their own."""
        return self.device is None

    @property
    def self_cpu_time_total(self) -> float:
        """The host's time in the operation itself: none for a block."""
        return 0.0 if self.is_user_annotation else self.cpu_time_total

    @property
    def self_device_time_total(self) -> float:
        """The device's time in the operation itself: none for a block."""
        return 0.0 if self.is_user_annotation else self.device_time_total

    @property
    def cpu_time(self) -> float:
        """Of one call, on average."""
        return self.cpu_time_total / self.count if self.count else 0.0

    @property
    def device_time(self) -> float:
        """Of one call, on average."""
        return self.device_time_total / self.count if self.count else 0.0

    @property
    def bytes_per_second(self) -> float:
        return self.bytes / self.device_time_total * 1e6 if self.device_time_total else 0.0

    @property
    def flops_per_second(self) -> float:
        return self.flops / self.device_time_total * 1e6 if self.device_time_total else 0.0

    def __repr__(self) -> str:
        return f"<{self.key}: {self.count} calls, {self.device_time_total:.1f} us on the device>"


_SORTED: dict[str, Callable[[Average], Any]] = {
    "total": lambda a: a.device_time_total,
    "mean": lambda a: a.device_time,
    "calls": lambda a: a.count,
    "gb/s": lambda a: a.bytes_per_second,
    "gflop/s": lambda a: a.flops_per_second,
    **{
        name: lambda a, name=name: getattr(a, name)  # type: ignore[misc]
        for name in "key count bytes flops cpu_time cpu_time_total self_cpu_time_total device_time device_time_total "
        "self_device_time_total".split()
    },
}
_ALIASES = {"name": "key"}  # and PyTorch's: cuda_time_total for device_time_total


def sort_key(sort_by: str | None) -> Callable[[Average], Any]:
    """Raises ValueError for an unknown column."""
    name = (sort_by or "total").lower().replace("cuda_", "device_").replace("xpu_", "device_")
    name = _ALIASES.get(name, name)
    if name not in _SORTED:
        raise ValueError(f"table: cannot sort by {sort_by!r}; there are {', '.join([*_ALIASES, *_SORTED])}")
    return _SORTED[name]


class Averages(list[Average]):
    """The operations, and after them the blocks; ``print`` shows them as a table."""

    def __init__(self, rows: Iterable[Average] = (), wall_ns: int | None = None) -> None:
        super().__init__(rows)
        self._wall_ns = wall_ns

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of the host in all operations."""
        return sum(a.self_cpu_time_total for a in self)

    def total_average(self) -> Average:
        """Everything as one row, called "Total"."""
        total = Average("Total", None)
        for a in self:
            if not a.is_user_annotation:
                total.device = a.device
                for field in ("count", "bytes", "flops", "cpu_time_total", "device_time_total"):
                    setattr(total, field, getattr(total, field) + getattr(a, field))
        return total

    def table(
        self,
        sort_by: str | None = None,
        row_limit: int = 100,
        max_src_column_width: int = 75,
        max_name_column_width: int = 55,
        max_shapes_column_width: int = 80,
        header: str | None = None,
        top_level_events_only: bool = False,
        time_unit: str | None = None,
        *,
        peaks: bool = True,
    ) -> str:
        """A row for each operation, sorted by ``sort_by`` (a column, or one of PyTorch's names for them; default: the
        device's total time), the largest first, names from A to Z.

        ``row_limit``: how many at most, -1 for all. ``header``: a line above. ``time_unit``: "s", "ms" or "us" for the
        totals. ``peaks``: whether to compare with what the device can do, which is measured the first time
        (:func:`gpugrad.profiler.peak`). Raises ValueError for an unknown column or unit."""
        if time_unit not in (None, "s", "ms", "us"):
            raise ValueError(f"table: time_unit must be 's', 'ms' or 'us', not {time_unit!r}")
        key = sort_key(sort_by)
        by_name = sort_by is not None and key is _SORTED["key"]
        ordered = sorted(self, key=key, reverse=not by_name)
        rows = [a for a in ordered if not a.is_user_annotation]
        blocks = [a for a in ordered if a.is_user_annotation and not top_level_events_only]
        limit = None if row_limit < 0 else row_limit
        style = _Style(rows, max_name_column_width, max_shapes_column_width, time_unit or "ms", peaks)
        lines = _aligned([style.titles(), *(style.row(a) for a in rows[:limit])])
        if rows[limit:] if limit is not None else ():
            lines.append(f"... and {len(rows) - len(rows[:limit])} more")
        if blocks:
            lines += ["", *_aligned([style.block_titles(), *(style.block(a) for a in blocks[:limit])])]
        lines += ["", *style.summary(self._wall_ns)]
        return "\n".join(([header] if header else []) + lines)

    def __str__(self) -> str:
        return self.table()


class _Style:
    """How the cells of one table look."""

    def __init__(self, rows: Sequence[Average], name_width: int, shapes_width: int, unit: str, peaks: bool) -> None:
        self.rows = rows
        self.name_width, self.shapes_width = name_width, shapes_width
        self.unit, self.scale = unit, {"s": 1e6, "ms": 1e3, "us": 1.0}[unit]
        self.devices = sorted({a.device for a in rows if a.device is not None}, key=str)
        self.total = sum(a.device_time_total for a in rows)
        self.peaks = {d: peak(d) for d in self.devices} if peaks else {}
        self.shapes = any(a.input_shapes is not None for a in rows)

    def titles(self) -> list[str]:
        device = ["device"] if len(self.devices) > 1 else []
        of = ["of copy"] if self.peaks else []
        gemm = ["of GEMM"] if self.peaks else []
        shapes = ["input shapes"] if self.shapes else []
        times = ["calls", f"total {self.unit}", "mean us", "share"]
        return ["operation", *device, *times, "GB/s", *of, "GFLOP/s", *gemm, *shapes]

    def row(self, a: Average) -> list[str]:
        cells = [_cut(a.key, self.name_width)]
        if len(self.devices) > 1:
            cells.append(str(a.device))
        share = a.device_time_total / self.total if self.total else 0.0
        cells += [str(a.count), f"{a.device_time_total / self.scale:.3f}", f"{a.device_time:.2f}", f"{share:.1%}"]
        limits = self.peaks.get(a.device) if a.device is not None else None
        cells += _rate(a.bytes_per_second, limits and limits.copy)
        cells += _rate(a.flops_per_second, limits and limits.gemm)
        if self.shapes:
            cells.append(_cut(str(list(map(list, a.input_shapes or ()))), self.shapes_width))
        return cells

    def block_titles(self) -> list[str]:
        return ["block", "calls", f"device {self.unit}", f"host {self.unit}", "share"]

    def block(self, a: Average) -> list[str]:
        share = a.device_time_total / self.total if self.total else 0.0
        times = (f"{t / self.scale:.3f}" for t in (a.device_time_total, a.cpu_time_total))
        return [_cut(a.key, self.name_width), str(a.count), *times, f"{share:.1%}"]

    def summary(self, wall_ns: int | None) -> list[str]:
        lines = []
        for d in self.devices:
            work = sum(a.device_time_total for a in self.rows if a.device == d)
            line = f"{d}: {work / self.scale:.3f} {self.unit} of work"
            if wall_ns:
                line += f" in {wall_ns / 1e3 / self.scale:.3f} {self.unit}"
            if d in self.peaks:
                copy, gemm = self.peaks[d]
                line += f"; measured: copy {_digits(copy / 1e9)} GB/s, float32 GEMM {_digits(gemm / 1e9)} GFLOP/s"
            lines.append(line)
        return lines or ["nothing was recorded"]


def _rate(per_second: float, limit: float | None) -> list[str]:
    """A rate in 1e9 per second and, where it is known, as a share of the most there is."""
    if not per_second:
        return ["", ""] if limit else [""]
    shown = _digits(per_second / 1e9)
    return [shown, f"{per_second / limit:.0%}"] if limit else [shown]


def _digits(x: float) -> str:
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}" if x >= 0.005 else "<0.01"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 3, 0)] + "..."


def _aligned(rows: list[list[str]]) -> list[str]:
    """The first row is the titles; the first column stands left, numbers right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def averages(events: Iterable[Event], ranges: Iterable[Range], by_shapes: bool, wall_ns: int | None) -> Averages:
    """Events added up by name and device (and input shapes), and the blocks by name."""
    rows: dict[Any, Average] = {}
    blocks: dict[str, Average] = {}
    for r in ranges:
        block = blocks.setdefault(r.name, Average(r.name, None))
        block.count += 1
        block.cpu_time_total += (r.end_ns - r.start_ns) / 1e3
    for event in events:
        key = (event.name, event.device, event.input_shapes if by_shapes else None)
        if key not in rows:
            rows[key] = Average(*key)
        rows[key].add(event)
        for name in set(event.ranges) & blocks.keys():  # of a block that has not been left yet there is no row
            blocks[name].add_work(event)
    return Averages([*rows.values(), *blocks.values()], wall_ns)


# -- Chrome's trace format ------------------------------------------------------------------------


def write_trace(
    path: str | os.PathLike[str], events: Sequence[Event], ranges: Sequence[Range], origin: int, about: dict[str, Any]
) -> None:
    """JSON for chrome://tracing and ui.perfetto.dev, compressed if ``path`` ends in ".gz"; times count from
    ``origin``, ``about`` is kept with them. The file appears whole or not at all."""
    document = {"displayTimeUnit": "ms", "otherData": about, "traceEvents": _trace(events, ranges, origin)}
    text = json.dumps(document, separators=(",", ":")).encode()
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(text) if str(path).endswith(".gz") else text)


def _trace(events: Sequence[Event], ranges: Sequence[Range], origin: int) -> list[dict[str, Any]]:
    """A process for the host, one for the blocks and one for each device; a track for each thread, of a device that
    takes one thing after another a single one. Work of such a device is shown beside the host's calls that asked
    for it."""
    devices = sorted({e.device for e in events}, key=str)
    process = {d: 2 + i for i, d in enumerate(devices)}
    threads: dict[str, int] = {}
    tracks: dict[tuple[int, int], list[tuple[int, int, str, dict[str, Any]]]] = {}

    def put(pid: int, tid: int, begin: int, end: int, name: str, details: dict[str, Any]) -> None:
        tracks.setdefault((pid, tid), []).append((begin, end, name, details))

    def thread(name: str) -> int:
        return threads.setdefault(name, len(threads) + 1)

    for e in events:
        tid = thread(e.thread)
        queue = 0 if not e.timeline.concurrent else tid
        details = {
            "call": e.call,
            "bytes": e.bytes,
            "flops": e.flops,
            "input_shapes": [list(s) for s in e.input_shapes],
            "blocks": list(e.ranges),
        }
        if not e.timeline.concurrent:
            put(0, tid, e.start_ns, e.end_ns, e.name, details)
        for begin, end in e.spans_ns:
            put(process[e.device], queue, begin, end, e.name, details)
    for r in ranges:
        put(1, thread(r.thread), r.start_ns, r.end_ns, r.name, {})

    names = {0: "host", 1: "blocks"} | {pid: f"device {d}" for d, pid in process.items()}
    found: list[dict[str, Any]] = []
    for pid in sorted({pid for pid, _ in tracks}):
        found.append({"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": names[pid]}})
    named = {number: name for name, number in threads.items()} | {0: "queue"}
    for (pid, tid), slices in sorted(tracks.items()):
        found.append({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": named[tid]}})
        free = 0
        for begin, end, name, details in sorted(slices, key=lambda s: (s[0], -s[1])):
            if pid != 1:  # clocks of devices are compared with the host's to a microsecond only
                begin = max(begin, free)
                free = end = max(begin, end)
            slice_ = {"ph": "X", "name": name, "pid": pid, "tid": tid, "cat": names[pid], "args": details}
            found.append(slice_ | {"ts": (begin - origin) / 1e3, "dur": (end - begin) / 1e3})
    return found
