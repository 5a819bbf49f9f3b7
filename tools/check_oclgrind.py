"""Run recorded kernel launches once more under oclgrind, which watches every access to memory.

    GPUGRAD_TEST_LAUNCHES=build/launches python -m pytest tests --device opencl
    python tools/check_oclgrind.py build/launches

Under ``GPUGRAD_TEST_LAUNCHES`` the suite notes, for every kernel of every specialisation, two small launches (one of a
single group, one of several) with the contents of their buffers (``tests/launches.py``). Here each is done again by the
OpenCL device of oclgrind (Debian's package of that name), a thousand times slower: buffers have exactly the size that
was asked for, and what the suite's poison shows to be unwritten stays unwritten. Every out-of-bounds access, data race,
read of uninitialised memory, divergent barrier and invalid argument ends in oclgrind's log, which has to stay empty.

First come small kernels with one fault each (``tools/oclgrind_faults.py``): a run that does not see all of them named
fails. So does one whose record lacks a kernel of ``kernels/``, or has a specialisation of one in launches too large for
this alone. Of kernels that gpugrad.compile makes, each for one size, those are only counted. With ``--seconds`` the
launches come in order of what they cost, and those left over are named, which is no failure.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import math
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

WORD = np.uint32(0xFFF6FFA9)  # tests/poison.py
MOST_SECONDS = 900  # of one launch; the slowest takes 80 beside other work
#: families whose groups work on tiles together: a launch of one group takes up to a minute
TILED = ("gg_attention_", "gg_product_")
#: clang's own functions, of which oclgrind knows none, where OpenCL has them by another name
BUILTIN = re.compile(r"\b__builtin_(sqrt|fabs|floor|ceil|trunc|rint)f\(")
ON_GPUS = {"attention_mma"}  # written in CUDA's inline assembly: tests/test_attention_mma.py


class Job(NamedTuple):
    """A launch: of an array there is one object, however many arguments it is."""

    source: str
    options: list[str]  # of the compiler
    kernel: str
    local: int  # items of a group
    groups: int
    args: list[Any]

    @property
    def shape(self) -> str:
        return "CPU" if "#define GG_CPU 1" in self.source else "GPU"

    @property
    def rank(self) -> tuple[bool, int]:
        """Cheap launches come before dear ones."""
        tiled = self.shape == "GPU" and self.kernel.startswith(TILED)
        nbytes = sum(arg.size for arg in {id(a): a for a in self.args if not isinstance(a, bytes)}.values())
        return tiled, nbytes + self.groups * self.local


# -- what was recorded ---------------------------------------------------------------------------
def read(folders: list[str]) -> tuple[list[Job], list[str], list[str]]:
    """The launches to be done; the kernels of which only launches too large for this were seen, of ``kernels/`` and
    made by gpugrad.compile."""
    sources: dict[str, tuple[str, list[str]]] = {}
    best: dict[tuple[str, str, int, bool], tuple[int, int, list[Any]]] = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("launches-*.pickle")):
            with open(path, "rb") as file:
                texts, seen = pickle.load(file)
            sources |= texts
            for key, found in seen.items():
                known = best.get(key)
                if known is None or (found[2] and (not known[2] or found[0] < known[0])):
                    best[key] = found
    jobs = [Job(*sources[k[0]], k[1], k[2], groups, args) for k, (_, groups, args) in sorted(best.items()) if args]
    done = {key[:3] for key, found in best.items() if found[2]}
    large: tuple[set[str], set[str]] = set(), set()
    for key in best:
        if key[:3] not in done:
            large[is_generated(sources[key[0]][0])].add(f"{key[1]} in groups of {key[2]}")
    return jobs, sorted(large[0]), sorted(large[1])


def is_generated(source: str) -> bool:
    """Whether gpugrad.compile made a text; those of ``kernels/`` are told the names of their kernels."""
    return "#define NAME " not in source


def never_launched(jobs: Iterable[Job]) -> list[str]:
    """The kernels in ``kernels/`` that no specialisation among ``jobs`` is of, as ``file: ending of the name``."""
    from gpugrad.backends import kernel_source

    texts = {path.stem: path.read_text() for path in kernel_source.directory().glob("*.c") if path.stem not in ON_GPUS}
    heads = re.compile(r"^KERNEL void (?:CAT\(NAME, (\w+)\)|NAME)\(", re.MULTILINE)
    declared = {(family, found[1] or "") for family, text in texts.items() for found in heads.finditer(text)}
    seen = set()
    for source, kernel in {(job.source, job.kernel) for job in jobs}:
        family = next((name for name, text in texts.items() if source.endswith(text)), None)
        if family is not None:
            name = re.search(r"^#define NAME (\w+)$", source, re.MULTILINE)
            assert name is not None, source[:500]
            seen.add((family, kernel.removeprefix(name[1])))
    return [f"{family}.c: {ending or 'NAME'}" for family, ending in sorted(declared - seen)]


# -- in a process under oclgrind -----------------------------------------------------------------
def replay(path: Path) -> int:
    """Do the launches of the file, and write after each what came into the log and how long it took.

    They are compiled without optimisation: that takes a third of the time, which is more than optimised code saves in
    such small launches, and there is nothing in it that oclgrind cannot follow."""
    import pyopencl as cl

    with open(path, "rb") as file:
        jobs: list[Job] = pickle.load(file)
    device = cl.get_platforms()[0].get_devices()[0]
    assert "Oclgrind" in device.platform.name, device.platform.name
    context = cl.Context([device])
    queue = cl.CommandQueue(context)
    memory = Memory(cl, context, queue)
    programs: dict[str, Any] = {}  # none is let go: oclgrind takes values of a new one for those of one that is gone
    with open(path.with_suffix(".log")) as log, open(path.with_suffix(".done"), "wb") as done:
        for job in jobs:
            problem = ""
            signal.alarm(MOST_SECONDS)  # which ends this process
            began = time.perf_counter()
            try:
                if job.source not in programs:
                    flags = ["-cl-std=CL1.2", *job.options, "-cl-opt-disable"]
                    source = BUILTIN.sub(r"(\1)(", job.source)
                    programs[job.source] = cl.Program(context, source).build(flags, cache_dir=False)
                kernel = cl.Kernel(programs[job.source], job.kernel)
                buffers: dict[int, Any] = {}
                for i, arg in enumerate(job.args):
                    if not isinstance(arg, bytes) and id(arg) not in buffers:
                        buffers[id(arg)] = memory.buffer(arg)
                    kernel.set_arg(i, arg if isinstance(arg, bytes) else buffers[id(arg)])
                cl.enqueue_nd_range_kernel(queue, kernel, (job.groups * job.local,), (job.local,))
                queue.finish()
            except (cl.Error, cl.RuntimeError) as error:
                problem = str(error)[:2000]
            pickle.dump((problem + log.read(), time.perf_counter() - began), done)
            done.flush()
    return 0


#: up to which size what of a buffer is unwritten is told to oclgrind word by word, which takes its time
MOST_WORDS = 4096
PUT = """
__kernel void put(__global const uint *data, __global const uchar *written, __global uint *buffer, uint count) {
    size_t i = get_global_id(0);
    if (i < count && written[i]) buffer[i] = data[i];
}
"""


class Memory:
    """Buffers with what was in them."""

    def __init__(self, cl: Any, context: Any, queue: Any) -> None:
        self.cl, self.context, self.queue = cl, context, queue
        # oclgrind takes the memory of a freed buffer for uninitialised when it is used again.
        self.kept: list[Any] = []
        self.put = cl.Kernel(cl.Program(context, PUT).build(cache_dir=False), "put")

    def buffer(self, data: np.ndarray) -> Any:
        """A buffer with the bytes of ``data``, of which those that are poison stay unwritten."""
        cl = self.cl
        buffer = cl.Buffer(self.context, cl.mem_flags.READ_WRITE, data.size)
        words = data[: data.size // 4 * 4].view(np.uint32)
        written = words != WORD
        if written.all() or (written.any() and words.size > MOST_WORDS):
            cl.enqueue_copy(self.queue, buffer, data, is_blocking=True)
        elif written.any():
            # By a kernel: oclgrind does not take note of host writes that begin inside of a buffer.
            parts = [cl.Buffer(self.context, cl.mem_flags.COPY_HOST_PTR, hostbuf=x) for x in (words, written)]
            self.kept.append(parts)
            groups = -(-words.size // 64)
            self.put(self.queue, (64 * groups,), (64,), *parts, buffer, np.uint32(words.size))
            if data.size % 4:  # not a whole word: nothing tells whether it was written
                rest = data[words.size * 4 :]
                cl.enqueue_copy(self.queue, buffer, rest, dst_offset=words.size * 4, is_blocking=True)
        self.kept.append(buffer)
        return buffer


# -- the processes -------------------------------------------------------------------------------
class Outcome(NamedTuple):
    job: Job
    problem: str  # "" where nothing was found
    seconds: float


class Pool:
    """Processes under oclgrind, each with a part of the launches."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.folder = folder
        self.processes = processes
        self.started = 0

    def check(self, jobs: list[Job], seconds: float = math.inf, size: int = 50) -> tuple[list[Outcome], list[Job]]:
        """Do them in their order, ``size`` in a process, until the time is over: what came of them, and those left."""
        outcomes: list[Outcome] = []
        left: list[Job] = []
        end = time.monotonic() + seconds
        waiting = collections.deque(jobs[i : i + size] for i in range(0, len(jobs), size))
        running: dict[subprocess.Popen[bytes], tuple[Path, list[Job]]] = {}
        try:
            while waiting or running:
                late = time.monotonic() > end
                if late:
                    left += itertools.chain.from_iterable(waiting)
                    waiting.clear()
                    for process in running:
                        process.kill()
                while waiting and len(running) < self.processes:
                    part = waiting.popleft()
                    process, path = self._start(part)
                    running[process] = path, part
                time.sleep(0.02)
                for process in [p for p in running if p.poll() is not None]:
                    path, part = running.pop(process)
                    ends = written(path.with_suffix(".done"))
                    found = [Outcome(job, *done) for job, done in zip(part, ends, strict=False)]
                    if late:
                        left += part[len(found) :]
                    elif len(found) < len(part):  # it ended in the middle of a launch
                        if part[len(found) + 1 :]:
                            waiting.appendleft(part[len(found) + 1 :])
                        found.append(Outcome(part[len(found)], self._end(process.returncode, path), 0.0))
                    outcomes += found
        finally:
            for process in running:
                process.kill()
        return outcomes, left

    def _start(self, jobs: list[Job]) -> tuple[subprocess.Popen[bytes], Path]:
        path = self.folder / f"{self.started}.jobs"
        self.started += 1
        with open(path, "wb") as file:
            pickle.dump(jobs, file)
        log = path.with_suffix(".log")
        log.touch()
        command = ["oclgrind", "--num-threads", "1", "--data-races", "--uninitialized", "--log", str(log)]
        command += [sys.executable, __file__, "--replay", str(path)]
        with open(path.with_suffix(".err"), "wb") as errors:
            return subprocess.Popen(command, stdout=errors, stderr=errors), path

    def _end(self, status: int, path: Path) -> str:
        if -status == signal.SIGALRM or status == 128 + signal.SIGALRM:
            return f"given up after {MOST_SECONDS} seconds"
        text = path.with_suffix(".log").read_text() + path.with_suffix(".err").read_text()
        return f"the process ended with status {status}\n{text}"


def written(path: Path) -> list[tuple[str, float]]:
    """What :func:`replay` wrote, up to where it ended."""
    found: list[tuple[str, float]] = []
    if path.exists():
        with open(path, "rb") as file:
            while True:
                try:
                    found.append(pickle.load(file))
                except (EOFError, pickle.UnpicklingError):
                    break
    return found


# -- the report ----------------------------------------------------------------------------------
def report(outcomes: Iterable[Outcome]) -> None:
    """Print what was found, one of each kind in full."""
    kinds: dict[tuple[str, str], list[Outcome]] = collections.defaultdict(list)
    for outcome in outcomes:
        place = re.search(r"At line \d+[^\n]*\n([^\n]*)", outcome.problem)
        kinds[headings(outcome.problem)[0], place[1].strip() if place else ""].append(outcome)
    for found in kinds.values():
        job, text, _ = found[0]
        others = sorted({o.job.kernel for o in found})
        counts = "; ".join(f"{n} times {kind}" for kind, n in collections.Counter(headings(text)).items())
        print(f"--- {job.kernel}, {job.groups} groups of {job.local}, {job.shape} shapes; {len(found)} launches like "
              f"it: {', '.join(others[:8])}", file=sys.stderr)  # fmt: skip
        print(f"{text.strip()[:1000]}\n=== {counts}", file=sys.stderr)


def headings(log: str) -> list[str]:
    """The first line of each complaint, without the address."""
    return [line.split(" address ")[0] for line in re.findall(r"(?:\A|\n\n)(\S[^\n]*)", log.strip())]


def unseen_faults(pool: Pool) -> list[str]:
    """Which of the planted faults are not named."""
    import oclgrind_faults

    faults = oclgrind_faults.FAULTS
    outcomes = {o.job.kernel: o.problem for o in pool.check([Job(*fault.job) for fault in faults])[0]}
    return [f"{f.job[2]}: {outcomes[f.job[2]] or 'nothing'}" for f in faults if not f.named_in(outcomes[f.job[2]])]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("record", nargs="*", help="folders written under GPUGRAD_TEST_LAUNCHES")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("-k", default="", help="only kernels whose name has this in it; none is missed then")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which what is left is only named")
    parser.add_argument("--slowest", type=int, default=0, metavar="N", help="tell which launches took longest")
    parser.add_argument("--replay", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.replay:
        return replay(Path(options.replay))
    if shutil.which("oclgrind") is None:
        print("check_oclgrind: oclgrind is not installed (on Debian and Ubuntu: apt-get install oclgrind)")
        return 1
    jobs, missing, beyond = read(options.record)
    jobs = [job for job in jobs if options.k in job.kernel]
    if not jobs:
        print("check_oclgrind: the record is empty", file=sys.stderr)
        return 1
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        pool = Pool(Path(name), options.jobs)
        unseen = unseen_faults(pool)
        if unseen:
            print(f"planted faults that were not named: {'; '.join(unseen)}", file=sys.stderr)
            return 1
        outcomes, left = pool.check(sorted(jobs, key=lambda job: job.rank), options.seconds)
    problems = [o for o in outcomes if o.problem.strip()]
    report(problems)
    absent = [] if options.k else never_launched(jobs)
    if options.k or options.seconds < math.inf:
        missing = []
    for text, names in (("only in launches too large for this", missing), ("never launched", absent)):
        if names:
            print(f"{text}: {'; '.join(names)}", file=sys.stderr)
    if left:
        counts = collections.Counter(f"{job.kernel.split('_')[1]} ({job.shape} shapes)" for job in left)
        parts = "; ".join(f"{n} of {family}" for family, n in counts.most_common(12))
        print(f"no time for {len(left)} launches: {parts}")
    for o in sorted(outcomes, key=lambda o: -o.seconds)[: options.slowest]:
        print(f"{o.seconds:6.2f} s  {o.job.kernel}, {o.job.groups} groups of {o.job.local}, {o.job.shape} shapes")
    for shape in ("CPU", "GPU"):
        of = [o for o in outcomes if o.job.shape == shape]
        kernels, sources = {(o.job.source, o.job.kernel) for o in of}, {o.job.source for o in of}
        made, seconds = sum(map(is_generated, sources)), sum(o.seconds for o in of)
        print(f"launch shapes of {shape}s: {len(of)} launches of {len(kernels)} kernels in {len(sources)} programs "
              f"({made} made by gpugrad.compile), {seconds:.0f} s")  # fmt: skip
    seconds, undone = time.perf_counter() - start, len(missing) + len(absent)
    print(f"{len(outcomes)} launches under oclgrind in {seconds:.0f} s by {options.jobs} processes: {len(problems)} "
          f"with findings, {undone} kernels not done; of gpugrad.compile's {len(beyond)} were too large")  # fmt: skip
    return 1 if problems or missing or absent else 0


if __name__ == "__main__":
    sys.exit(main())
