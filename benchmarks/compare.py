"""gpugrad and its peers side by side: the same workloads, from the same numbers, alternating in one run.

    python -m benchmarks.compare --device cpu --against torch,torch.fused,torch.compile,jax,tinygrad
    python -m benchmarks.compare --only moons,gpt --rounds 5 --against torch

Each contestant has a process of its own and only one of them works at a time; in every round each takes a sample, in
another order, so that a busy machine disturbs all alike. Before that all take the same steps, and what they computed
is compared: a mismatch is printed and makes the exit status 1. Peers that are not installed or lack the device are
left out with a line; ``NAME@DEVICE`` times a peer on another device than gpugrad's. The table of all workloads is
written to benchmarks/results/ as JSON and Markdown, with why a row misses its goal (benchmarks/reasons.toml); with
``--only`` or ``--tiny`` only if ``--out`` says where.

The peers come with the extra ``bench``, PyTorch with ``parity``: ``pip install -e ".[bench,parity]"``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.worker import Contestant, Failed

AGAINST = "torch,torch.fused,torch.compile,jax,tinygrad"
PAUSE = 0.01  # seconds between two samples, besides the rest that a contestant takes (worker.py)


def limit_threads(threads: int | None) -> int:
    """Tell every library in use, before it is imported, and where the system can, allow no more processors."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    threads = min(threads or len(allowed), len(allowed))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, allowed[:threads])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GPUGRAD_THREADS"):
        os.environ[name] = str(threads)
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # each library chooses its kernels for this processor
        os.environ.pop(name, None)
    os.environ["POCL_MAX_PTHREAD_COUNT"] = os.environ["POCL_CPU_MAX_CU_COUNT"] = str(threads)  # up to 3; from 4 on
    return threads


class Race:
    """One workload: who takes part, what they computed, how long they took."""

    def __init__(self, workload: Any, contestants: list[Contestant], tiny: bool) -> None:
        self.workload = workload
        self.tiny = tiny
        self.racing: list[Contestant] = []
        self.notes: dict[str, str] = {}  # who is left out, and why
        self.failures: list[str] = []
        self.mismatches: list[str] = []
        self.differs: list[str] = []  # who computed other numbers; timed, but nobody's yardstick
        self.samples: dict[str, list[float]] = {}
        self._build(contestants)

    def _build(self, contestants: list[Contestant]) -> None:
        """Everyone's warm-up; what the first computed (gpugrad, if it did) is what the others are compared with."""
        from benchmarks.workloads import disagreement

        reference: tuple[str, Any] | None = None
        for contestant in contestants:
            numbers = self._ask(contestant, "build", self.workload.name, self.tiny)
            if numbers is None:
                continue
            if reference is None:
                reference = (contestant.name, numbers)
            elif why := disagreement(numbers, reference[1], self.workload.tolerance):
                self.mismatches.append(f"{self.workload.name}: {contestant.name} against {reference[0]}: {why}")
                self.differs.append(contestant.name)
            self.racing.append(contestant)

    def _ask(self, contestant: Contestant, *question: Any) -> Any:
        try:
            return contestant.ask(*question)
        except Failed as error:
            self.notes[contestant.name] = str(error)
            if not error.absent:
                self.failures.append(f"{self.workload.name}: {contestant.name}: {error}")
            if contestant in self.racing:
                self.racing.remove(contestant)
            return None

    def run(self, rounds: int, sample_seconds: float, budget: float) -> None:
        """``rounds`` samples of about ``sample_seconds`` each. Who needs more than ``budget`` seconds gets fewer:
        three, or one if a single step takes that long."""
        steps, spent = {}, dict.fromkeys((c.name for c in self.racing), 0.0)
        for contestant in list(self.racing):
            seconds = self._ask(contestant, "calibrate")
            if seconds is not None:
                steps[contestant.name] = max(1, min(100_000, round(sample_seconds / seconds)))
                self.samples[contestant.name] = []
        for number in range(rounds):
            turn = number % max(1, len(self.racing))
            for contestant in self.racing[turn:] + self.racing[:turn]:
                taken = self.samples[contestant.name]
                enough = 1 if taken and taken[0] > budget else 3
                if spent[contestant.name] > budget and len(taken) >= enough:
                    continue
                time.sleep(PAUSE)
                began = time.perf_counter()
                seconds = self._ask(contestant, "sample", steps[contestant.name])
                spent[contestant.name] += time.perf_counter() - began
                if seconds is not None:
                    taken.append(seconds)
        for contestant in list(self.racing):
            self._ask(contestant, "drop")

    def row(self, device: str) -> dict[str, Any]:
        from benchmarks import report

        timed = {name: report.figures(taken) for name, taken in self.samples.items() if taken}
        return report.row(self.workload, device, timed, self.notes, self.differs)


def present(contestants: list[Contestant]) -> tuple[list[Contestant], dict[str, Any], dict[str, str], list[str]]:
    """Those that start, what they say about themselves, why the others are absent, and which of these are failures."""
    here, about, absent, failures = [], {}, {}, []
    for contestant in contestants:
        try:
            about[contestant.name] = contestant.ask("about")
            here.append(contestant)
        except Failed as error:
            absent[contestant.name] = str(error)
            if not error.absent:
                failures.append(f"{contestant.name}: {error}")
            print(f"{contestant.name} is left out: {error}")
            contestant.close()
    return here, about, absent, failures


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu, opencl[:i] or cuda[:i]")
    parser.add_argument("--against", default=AGAINST, metavar="PEER,...", help=f"default {AGAINST}; also numpy")
    parser.add_argument("--only", metavar="NAME,...", help="these workloads")
    parser.add_argument("--rounds", type=int, default=15, help="samples of each contestant")
    parser.add_argument("--sample", type=float, default=0.1, metavar="SECONDS", help="length of a sample, about")
    parser.add_argument("--budget", type=float, default=15, metavar="SECONDS", help="per contestant and workload")
    parser.add_argument("--patience", type=float, default=600, metavar="SECONDS", help="longest wait for one answer")
    parser.add_argument("--threads", type=int, help="of each contestant; default all cores")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the results go; default benchmarks/results")
    parser.add_argument("--tiny", action="store_true", help="small sizes: does it run and agree? (no useful times)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--eager", action="store_true", help="of gpugrad, eager alone")
    which.add_argument("--compiled", action="store_true", help="of gpugrad, compiled alone")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    threads = limit_threads(options.threads)
    from benchmarks import peers, report, workloads  # they import NumPy, which reads the environment

    ours = ["gpugrad.compile"] if options.compiled else ["gpugrad"] if options.eager else list(report.OURS)
    names = list(dict.fromkeys(ours + [name for name in options.against.split(",") if name]))
    try:
        wanted = workloads.chosen(options.only.split(",") if options.only else None)
        if unknown := {name.partition("@")[0] for name in names} - set(peers.PEERS):
            raise ValueError(f"no peer is called {', '.join(sorted(unknown))}; there are {', '.join(peers.PEERS)}")
    except ValueError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    result: dict[str, Any] = {"command": "python -m benchmarks.compare " + " ".join(arguments or sys.argv[1:])}
    result |= {"machine": report.machine(), "device": options.device, "threads": threads, "rounds": options.rounds}
    result["tiny"] = options.tiny
    load = result["machine"]["load_before"]
    if load and load[0] > 0.5:  # OpenMP's threads wait for each other actively, so PyTorch suffers far more than others
        print(
            f"The machine is busy (load {load[0]}): alternating does not make that fair, keep no figures of this run."
        )
    contestants, result["about"], result["absent"], failures = present(
        [Contestant(name, options.device, threads, options.patience) for name in names]
    )
    if not any(contestant.name in report.OURS for contestant in contestants):
        print("compare: gpugrad itself cannot be timed", file=sys.stderr)
        return 1
    result["contestants"] = [contestant.name for contestant in contestants]
    rows, mismatches = [], []
    try:
        for workload in wanted:
            race = Race(workload, contestants, options.tiny)
            race.run(options.rounds, options.sample, options.budget)
            rows.append(race.row(options.device))
            failures += race.failures
            mismatches += race.mismatches
            times = ", ".join(f"{name} {report.duration(f['median'])}" for name, f in rows[-1]["peers"].items())
            print(f"{workload.name}: {times}", flush=True)
    finally:
        for contestant in contestants:
            contestant.close()
    result |= {"rows": rows, "failures": failures, "mismatches": mismatches}
    report.show(rows, result["contestants"])
    if not options.tiny:
        for line in report.reasons_of(rows, options.device):
            print(line)
    for line in [*(f"MISMATCH {m}" for m in mismatches), *(f"FAILED {f}" for f in failures)]:
        print(line)
    if options.out or not (options.only or options.tiny):
        folder = options.out or Path(__file__).parent / "results"
        print("wrote", *report.write(result, folder))
    return 1 if mismatches or failures else 0


if __name__ == "__main__":
    sys.exit(main())
