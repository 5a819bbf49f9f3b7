"""Fuzzing for as long as one likes: ``python -m tests.fuzz --minutes 30`` (``make fuzz MINUTES=30``).

Programs are drawn by hypothesis, a batch for each seed, and run on the CPU, the other devices that are present and,
where it is installed, PyTorch. A failure is made small, printed as a program, and kept in ``--keep``; then it
goes on with the next batch. The exit status is 1 if there was one.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

import gpugrad as gg
from tests import pretend
from tests.fuzz.generate import programs
from tests.fuzz.judge import verdict
from tests.fuzz.shorten import kind, shorten

BATCH = 400


def main() -> int:
    """Parse the command line, fuzz, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="differential fuzzing of gpugrad")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--device", default="pretend", help="comma-separated types to compare with the CPU")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first batch")
    parser.add_argument("--narrow", action="store_true", help="few dtypes and shapes, for devices that compile kernels")
    parser.add_argument("--no-torch", action="store_true", help="compare devices alone")
    parser.add_argument("--keep", type=Path, help="folder for the programs that failed")
    options = parser.parse_args()
    pretend.register()
    devices = [d for d in options.device.split(",") if d and gg.is_available(d)]
    torch = None if options.no_torch else _torch()
    print(f"cpu against {', '.join([*devices, *(['PyTorch'] if torch else [])])}; seed {options.seed}", flush=True)
    end = time.monotonic() + 60 * options.minutes
    tried = 0
    found: Counter[str] = Counter()
    reported: set[str] = set()
    batch = options.seed
    while time.monotonic() < end:
        failures: list[tuple[list[str], str]] = []

        @seed(batch)
        @settings(max_examples=BATCH, deadline=None, database=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(programs(options.narrow))
        def run(lines: list[str]) -> None:
            nonlocal tried
            if time.monotonic() > end:
                return
            tried += 1
            text = verdict(lines, devices, torch)
            if text is not None:
                failures.append((lines, text))  # noqa: B023  # called in this turn of the loop alone

        run()
        batch += 1
        for lines, text in failures:
            found[kind(text)] += 1
            if found[kind(text)] <= 3:
                small = shorten(lines, lambda some: verdict(some, devices, torch))
                if "\n".join(small) not in reported:  # a batch may hold a program several times
                    reported.add("\n".join(small))
                    _report(small, devices, torch, options.keep)
    print(f"{tried} programs tried, {found.total()} failures of {len(found)} kinds", flush=True)
    return 1 if found else 0


def _report(lines: list[str], devices: list[str], torch: object, keep: Path | None) -> None:
    text = verdict(lines, devices, torch)
    program = "\n".join([f"# {text}", *lines])
    print(f"\n{program}\n", flush=True)
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{abs(hash(program)):x}.txt").write_text(program + "\n", encoding="utf-8")


def _torch() -> object:
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    return torch


if __name__ == "__main__":
    raise SystemExit(main())
