"""Mutation testing: break the ops table and the autograd walk in small ways, and see whether a test notices.

    python tools/mutants.py                     every part, 60 mutants each, spread evenly, drawn by --seed
    python tools/mutants.py table --all         every mutant of one part
    python tools/mutants.py --list walk         what would be broken, without running
    python tools/mutants.py --seconds 300       stop after so long; the next call goes on where this one stopped
    python tools/mutants.py --report            the figures of all that was tried so far

The rows of the table are expressions at the top level of a module, half of them in C inside strings; the tools there
are (mutmut, cosmic-ray) change the bodies of functions, or files in place. Here a mutant (``tools/mutations.py``)
exists only in the process that tests it: forked from one that has loaded all but gpugrad, which then finds the changed
module in place of the file's. It runs narrow selections of the tests, stage after stage, until the first failure.

What was tried is kept in ``build/mutants.jsonl``. Survivors are printed with their line: each wants a test, or, if no
test can tell it from the original, an entry in ``tools/mutants_equivalent.toml`` that says why. Exit status 1: there
are others.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
from mutations import ROOT, Finder, Mutant, digest, equivalent, mutants, rows_of

BUILD = ROOT / "build"
RESULTS = BUILD / "mutants.jsonl"
#: loaded before the fork, where present: what takes longest of a test's start
HEAVY = ("numpy", "ml_dtypes", "safetensors", "hypothesis.strategies", "mpmath", "pytest", "_pytest.assertion", "torch")


class Stage(NamedTuple):
    """A selection of tests. ``narrow``: only those that name one of the rows that the mutant is about."""

    tests: tuple[str, ...]
    device: str = "cpu"
    narrow: bool = False
    expression: str = ""  # for -k
    limit: float = 180.0  # seconds, for a walk that does not end


class Part(NamedTuple):
    files: tuple[str, ...]
    stages: tuple[Stage, ...]
    c_stages: tuple[Stage, ...] = ()  # for what is changed in C


def _tests(names: str) -> tuple[str, ...]:
    return tuple(f"tests/test_{name}.py" for name in names.split())


_LONG = "not million and not killed and not steps"
PARTS = {
    "table": Part(
        ("gpugrad/ops/elementwise.py",),
        (
            Stage(_tests("ops special_values parity"), narrow=True),
            Stage(_tests("rows")),
            Stage(_tests("errors inplace op_audit gradient_audit parity traced"), expression=_LONG),
            Stage(_tests("ops special_values creation indexing language updates losses special")),
            Stage(_tests("ops rows special_values"), "opencl", narrow=True),
            Stage(_tests("compile_ops special_values"), expression="compiled or forward"),
        ),
        (
            Stage(_tests("ops rows special_values device_backends"), "opencl", narrow=True),
            Stage(_tests("special_values compile_ops"), expression="compiled or forward"),
        ),
    ),
    "walk": Part(
        ("gpugrad/autograd/engine.py", "gpugrad/autograd/graph.py", "gpugrad/ops/recording.py", "gpugrad/ops/table.py"),
        (
            Stage(_tests("walk table autograd inplace traced autograd_functional anomaly"), expression=_LONG),
            Stage(_tests("errors saved_values saved_memory view_aliasing viz func programs"), expression=_LONG),
            Stage(_tests("ops parity"), expression="finite or promotion or gradient or number"),
            Stage(_tests("autograd module_hooks shapes indexing creation language resources"), expression=_LONG),
        ),
    ),
}


class Narrow:
    """The plugin that keeps the tests which name one of ``rows``."""

    def __init__(self, rows: set[str]) -> None:
        self.rows = rows
        words = "|".join(map(re.escape, sorted(rows)))
        self.names = re.compile(rf"(?<![a-zA-Z0-9])({words})(?![a-zA-Z0-9])")

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Cases of other rows are not even made, as making all of them takes longer than running these."""
        for mark in metafunc.definition.iter_markers("parametrize"):
            if len(mark.args) == 2:
                names, values = mark.args
                object.__setattr__(mark, "args", (names, [v for v in values if self._may_stay(v)]))

    pytest_generate_tests.pytest_impl = {"tryfirst": True}  # type: ignore[attr-defined]  # without importing pytest yet

    def _may_stay(self, value: Any) -> bool:
        row = getattr(value, "values", (None,))[0]
        return not hasattr(row, "vjps") or row.name in self.rows

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if self.names.search(item.name)]


# -- the process of one mutant ------------------------------------------------------------------------


def start(mutant: Mutant, stage: Stage, log: Path, others: Sequence[Mutant] = ()) -> int:
    """Fork, and run ``stage`` with ``mutant`` (and ``others``). Returns the process; its status is pytest's."""
    number = os.fork()
    if number:
        return number
    code = 3
    try:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.meta_path[:0] = [Finder(m) for m in (mutant, *others)]
        import pytest

        arguments = ["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning",
                     "--device", stage.device, *stage.tests]  # fmt: skip
        if stage.expression:
            arguments += ["-k", stage.expression]
        plugins = [Narrow(rows_of(mutant.file, mutant.line))] if stage.narrow else []
        code = int(pytest.main(arguments, plugins=plugins))
        sys.stdout.flush()
    finally:
        os._exit(code)
    return 0


class Job:
    """A mutant on its way through its stages."""

    def __init__(self, mutant: Mutant, stages: Sequence[Stage], place: int, others: Sequence[Mutant] = ()) -> None:
        self.mutant = mutant
        self.others = others
        self.stages = stages
        self.log = BUILD / f"mutant-{place}.log"
        self.began = time.monotonic()
        self.stage = -1
        self._next()

    def _next(self) -> None:
        self.stage += 1
        self.stage_began = time.monotonic()
        self.process = start(self.mutant, self.stages[self.stage], self.log, self.others)

    def poll(self) -> dict[str, Any] | None:
        """The outcome, None as long as there is none."""
        number, status = os.waitpid(self.process, os.WNOHANG)
        if not number:
            if time.monotonic() - self.stage_began < self.stages[self.stage].limit:
                return None
            self.kill()
            return self._outcome("killed", "does not end")
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, 5):  # 5: no test of that name here
            return self._outcome("killed", self._first_failure(code))
        if self.stage + 1 < len(self.stages):
            self._next()
            return None
        return self._outcome("survived", "")

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)

    def _first_failure(self, code: int) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        return (failed or [f"exit status {code}: {' '.join(lines[-2:])}"])[0][:200]

    def _outcome(self, outcome: str, by: str) -> dict[str, Any]:
        m = self.mutant
        return {"file": m.file, "digest": digest(m.file), "index": m.index, "line": m.line, "what": m.what,
                "outcome": outcome, "by": by, "stage": self.stage,
                "seconds": round(time.monotonic() - self.began, 1)}  # fmt: skip


# -- the driver ---------------------------------------------------------------------------------------


def stages_of(part: Part, mutant: Mutant) -> Sequence[Stage]:
    return part.c_stages if part.c_stages and mutant.what.startswith("C:") else part.stages


def spread(every: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """``count`` of them, one drawn from each of as many equal stretches of the source."""
    if count >= len(every):
        return list(every)
    draw = random.Random(seed)
    every = sorted(every, key=lambda m: (m.file, m.line, m.index))
    bounds = [len(every) * i // count for i in range(count + 1)]
    return [every[draw.randrange(a, b)] for a, b in zip(bounds, bounds[1:], strict=False)]


def outcomes() -> dict[tuple[str, int], dict[str, Any]]:
    """What was tried of the files as they are now, by file and number of the mutant."""
    if not RESULTS.exists():
        return {}
    found = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return {(r["file"], r["index"]): r for r in found if r["digest"] == digest(r["file"])}


def passes_unchanged(part: Part, which: slice) -> bool:
    """Whether the selections pass without any change, the files loaded through the finder."""
    for stages in filter(None, (part.stages[which], part.c_stages[which])):
        first, *others = [mutants(file)[-1]._replace(index=-1) for file in part.files]
        job = Job(first, stages, 0, others)
        while (result := job.poll()) is None:
            time.sleep(0.05)
        if result["outcome"] != "survived":
            print(f"unchanged, {stages[result['stage']]}: {result['by']}; see {job.log}", file=sys.stderr)
            return False
    return True


def work(waiting: Iterator[tuple[Mutant, Sequence[Stage]]], jobs: int, until: float) -> None:
    """Try them, ``jobs`` at a time, and write down what comes out."""
    running: dict[int, Job] = {}
    try:
        with RESULTS.open("a") as results:
            while True:
                for place in range(jobs):
                    if place not in running and time.monotonic() < until:
                        chosen = next(waiting, None)
                        if chosen is not None:
                            running[place] = Job(*chosen, place)
                if not running or time.monotonic() > until:
                    return
                for place, job in list(running.items()):
                    result = job.poll()
                    if result is not None:
                        del running[place]
                        print(json.dumps(result), file=results, flush=True)
                        if result["outcome"] == "survived":
                            print(f"survived: {job.mutant.file}:{job.mutant.line} {job.mutant.what}", flush=True)
                time.sleep(0.02)
    finally:
        for job in running.values():
            job.kill()  # tried again next time


def report(name: str, part: Part) -> int:
    """Print a part's figures and survivors. Returns how many of these nobody has explained."""
    every = [m for file in part.files for m in mutants(file)]
    done, known = outcomes(), equivalent()
    tried = [m for m in every if (m.file, m.index) in done]
    left = [m for m in tried if done[m.file, m.index]["outcome"] == "survived"]
    open_ones = [m for m in left if m.key() not in known]
    print(
        f"{name}: {len(every)} mutants, {len(tried)} tried, {len(tried) - len(left)} killed, {len(left)} survived, "
        f"of which {len(left) - len(open_ones)} are equivalent"
    )
    for m in open_ones:
        print(f"  {m.file}:{m.line} {m.what}\n      {m.text()}")
    return len(open_ones)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--sample", type=int, default=60, help="mutants per part")
    parser.add_argument("--all", action="store_true", help="every mutant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--again", action="store_true", help="those that survived before, as there are new tests")
    parser.add_argument("--quick", action="store_true", help="only the first two, narrowest selections of tests")
    parser.add_argument("--first", type=int, default=0, help="begin with the selection of this number")
    parser.add_argument("--only", default="", help="those whose 'file:line what' contains this")
    parser.add_argument("--unchecked", action="store_true", help="not first whether the tests pass without a change")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    until = time.monotonic() + options.seconds
    names = options.parts or list(PARTS)
    os.chdir(ROOT)
    BUILD.mkdir(exist_ok=True)
    sys.path.insert(0, str(ROOT))
    sys.pycache_prefix = str(BUILD / "mutants-pycache")  # that each process compiles only what is changed
    sys.dont_write_bytecode = False
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for module in HEAVY if not (options.list or options.report) else ():
        with suppress(ImportError):
            importlib.import_module(module)
    for name in names:
        part = PARTS[name]
        every = [m for file in part.files for m in mutants(file)]
        chosen = every if options.all else spread(every, options.sample, options.seed)
        chosen = [m for m in chosen if options.only in f"{m.file}:{m.line} {m.what}"]
        if options.list:
            print(*(f"{m.file}:{m.line} {m.what}" for m in chosen), sep="\n")
        elif not options.report:
            done = outcomes()
            skipped = {key for key, r in done.items() if not (options.again and r["outcome"] == "survived")}
            chosen = [m for m in chosen if (m.file, m.index) not in skipped]
            which = slice(options.first, 2 if options.quick else None)
            if chosen and not options.unchecked and not passes_unchanged(part, which):
                return 1
            work(((m, stages_of(part, m)[which]) for m in chosen), options.jobs, until)
    return 0 if options.list else int(sum([report(name, PARTS[name]) for name in names]) > 0)


if __name__ == "__main__":
    sys.exit(main())
