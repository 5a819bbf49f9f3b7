"""From samples to figures: statistics, the printed table, JSON and Markdown."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.workloads import Workload

OURS = ("gpugrad", "gpugrad.compile")
NO_PEER = ("numpy",)  # arithmetic by hand, not something one would pick instead
REASONS = Path(__file__).parent / "reasons.toml"


def machine() -> dict[str, Any]:
    """What the figures were taken on, as far as any machine tells."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    load = [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return {
        "date": date.today().isoformat(),
        "processor": processor,
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_before": load,  # runnable processes over 1, 5, 15 minutes: above ~0.5, somebody else was at work
    }


def figures(samples: list[float]) -> dict[str, float | int]:
    """Median and quartiles, in seconds per step."""
    ordered = sorted(samples)
    low, middle, high = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    return {"median": middle, "q1": low, "q3": high, "best": ordered[0], "samples": len(ordered)}


def row(
    workload: Workload,
    device: str,
    timed: Mapping[str, dict[str, Any]],
    notes: Mapping[str, str],
    differs: Sequence[str] = (),
) -> dict[str, Any]:
    """One workload's entry: the contestants' figures, each with its ratio to gpugrad and to the best peer on the same
    device (on any, if there is none), and ours against the goals. ``notes`` say why a contestant has no figures. Those
    in ``differs`` computed other numbers: their figures are shown, and compared with nobody's."""
    mine = timed.get(OURS[0]) or timed.get(OURS[1])
    others = {name: f["median"] for name, f in timed.items() if name.partition("@")[0] not in OURS + NO_PEER}
    others = {name: seconds for name, seconds in others.items() if name not in differs}
    here = [name for name in others if "@" not in name] or list(others)
    best = min(here, key=others.__getitem__) if here else None
    entry: dict[str, Any] = {"workload": workload.name, "title": workload.title, "best_peer": best, "peers": {}}
    for name, f in timed.items():
        ratios = {"to_gpugrad": f["median"] / mine["median"]} if mine else {}
        if best is not None:
            ratios["to_best_peer"] = f["median"] / others[best]
        entry["peers"][name] = f | ratios
    entry["left_out"], entry["differs"] = dict(notes), list(differs)
    eager = next((others[name] for name in ("torch", "torch@cpu") if name in others), None)
    if OURS[0] in timed and eager is not None:
        entry["eager_to_torch"] = timed[OURS[0]]["median"] / eager
    ours = [timed[name]["median"] for name in OURS if name in timed]
    if ours and best is not None:
        entry["ours_to_best_peer"] = min(ours) / others[best]
    entry["eager_goal"] = workload.eager_goal if device == "cpu" else None
    entry["best_goal"] = workload.compiled_goal if best is not None and "@" not in best else None
    return entry


def missed(entry: Mapping[str, Any]) -> list[str]:
    """Which goals the row misses, in words."""
    goals = (
        ("eager", "eager PyTorch's time", "eager_to_torch", "eager_goal"),
        ("the better of eager and compiled", "the best peer's time", "ours_to_best_peer", "best_goal"),
    )
    return [
        f"{ours} takes {entry[value]:.2f} times {theirs}, the goal is {entry[goal]:.1f}"
        for ours, theirs, value, goal in goals
        if entry.get(value) is not None and entry.get(goal) is not None and entry[value] > entry[goal]
    ]


def reasons_of(rows: Sequence[Mapping[str, Any]], device: str, path: Path = REASONS) -> list[str]:
    """A line for each row that misses a goal: by how much, and why, as ``path`` knows it for the workload and the
    kind of ``device``."""
    known = tomllib.loads(path.read_text())
    lines = []
    for entry in rows:
        if what := missed(entry):
            why = known.get(entry["workload"], {}).get(device.partition(":")[0], "not yet looked into.")
            lines.append(f"{entry['workload']}: {'; '.join(what)}: {why}")
    return lines


def duration(seconds: float) -> str:
    """Three digits with a unit."""
    for unit, factor in (("ns", 1e9), ("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000:
            value = seconds * factor
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{seconds:.2f} s"


def spread(f: Mapping[str, float]) -> str:
    """Distance of the quartiles as a part of the median."""
    return f"±{50 * (f['q3'] - f['q1']) / f['median']:.0f}%"


def _ratio(entry: Mapping[str, Any], key: str, goal: float | None) -> str:
    value = entry.get(key)
    if value is None:
        return ""
    return f"{value:.2f}" + ("" if goal is None else f" {'>' if value > goal else '<='} {goal:.1f}")


def _cell(entry: Mapping[str, Any], name: str) -> str:
    f = entry["peers"].get(name)
    if f is None:
        return "-"
    return f"{duration(f['median'])} {spread(f)}" + (" (other numbers)" if name in entry["differs"] else "")


def columns(rows: list[dict[str, Any]], names: list[str]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells, the same for the printed and the written table."""
    present = [name for name in names if any(name in r["peers"] for r in rows)]
    heads = ["workload", *present, "eager / torch", "gpugrad / best peer"]
    cells = []
    for r in rows:
        times = [_cell(r, name) for name in present]
        eager = _ratio(r, "eager_to_torch", r["eager_goal"])
        best = _ratio(r, "ours_to_best_peer", r["best_goal"])
        cells.append([r["workload"], *times, eager, best])
    return heads, cells


def show(rows: list[dict[str, Any]], names: list[str]) -> None:
    """Prints the table, by rich where it is installed."""
    heads, cells = columns(rows, names)
    if importlib.util.find_spec("rich") is not None:
        from rich.console import Console
        from rich.table import Table

        table = Table()
        for head in heads:
            table.add_column(head, no_wrap=True)
        for line in cells:
            table.add_row(*line)
        # A file or a pipe has no width, and a narrow terminal had better wrap lines than lose figures.
        Console(
            width=max(Console().width, Console().measure(table, options=Console(width=1000).options).maximum)
        ).print(table)
        return
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]
    for line in [heads, *cells]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def markdown(result: Mapping[str, Any]) -> str:
    heads, cells = columns(result["rows"], result["contestants"])
    by_name = {r["workload"]: r for r in result["rows"]}
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, *rest in cells:
        lines.append("| " + " | ".join([by_name[name]["title"], *rest]) + " |")
    where = result["machine"]
    about = "; ".join(
        f"{name}: " + ", ".join(f"{key} {value}" for key, value in told.items())
        for name, told in result["about"].items()
    )
    reasons: dict[tuple[str, str], list[str]] = {(name, why): [] for name, why in result["absent"].items()}
    for r in result["rows"]:
        for name, why in r["left_out"].items():
            reasons.setdefault((name, why), []).append(r["workload"])
    left_out = [f"- {n}: {why}" + (f" ({', '.join(w)})" if w else "") for (n, why), w in reasons.items()]
    why = [] if result["tiny"] else reasons_of(result["rows"], result["device"])
    agreement = "Every contestant computed the same numbers from the same inputs."
    if result["mismatches"]:
        agreement = f"**Not all contestants computed the same numbers:** {'; '.join(result['mismatches'])}."
    return "\n".join(
        [
            f"# Side by side on `{result['device']}`",
            "",
            f"Written by `{result['command']}` on {where['date']}: {where['processor']}, {result['threads']} of "
            f"{where['cores']} cores (load before: {where['load_before']}), {where['system']}, Python "
            f"{where['python']}. {about}."
            + (" Tiny sizes, not those in the table: the times mean nothing." if result["tiny"] else ""),
            "",
            "Medians over alternating samples of one run, with half the distance between the quartiles. Time per step; "
            "ratios below 1 mean that gpugrad is faster; a second number is the goal. " + agreement,
            "",
            *lines,
            "",
            *(["Goals that are missed, and why:", "", *(f"- {line}" for line in why), ""] if why else []),
            *(["Left out:", "", *left_out, ""] if left_out else []),
        ]
    )


def write(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """JSON and Markdown, ``compare_<device>``, into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"compare_{result['device'].replace(':', '')}"
    paths = [folder / f"{stem}.json", folder / f"{stem}.md"]
    paths[0].write_text(json.dumps(result, indent=1) + "\n")
    paths[1].write_text(markdown(result))
    return paths
