"""Run recorded kernel launches once more under oclgrind, which watches every access to memory.

    GPUGRAD_TEST_LAUNCHES=build/launches python -m pytest tests --device opencl
    python tools/check_oclgrind.py build/launches

Under ``GPUGRAD_TEST_LAUNCHES`` the suite notes, for every kernel of every specialisation, two small launches (one of a
single group, one of several) with the contents of their buffers (``tests/launches.py``). Here each is done again by the
OpenCL device of oclgrind (Debian's package of that name), a thousand times slower: buffers have exactly the size that
was asked for, and what the suite's poison shows to be unwritten stays unwritten. Every out-of-bounds access, data race,
read of uninitialised memory, divergent barrier and invalid argument ends in oclgrind's log, which has to stay empty.
"""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WORD = np.uint32(0xFFF6FFA9)  # tests/poison.py
Job = tuple[str, list[str], str, int, int, list[Any]]  # text, options, kernel, items of a group, groups, arguments


def read(folders: list[str]) -> tuple[list[Job], int, list[str]]:
    """The launches to be done, how many specialisations they are of, and the kernels of which only launches too large
    for this were seen."""
    sources: dict[str, tuple[str, list[str]]] = {}
    best: dict[tuple[str, str, int, bool], tuple[int, int, list[Any]]] = {}
    for folder in folders:
        for path in sorted(Path(folder).glob("launches-*.pickle")):
            with open(path, "rb") as file:
                texts, seen = pickle.load(file)
            sources |= texts
            for key, found in seen.items():
                known = best.get(key)
                if known is None or (found[2] and (not known[2] or found[0] < known[0])):
                    best[key] = found
    jobs = [(*sources[k[0]], k[1], k[2], groups, args) for k, (_, groups, args) in sorted(best.items()) if args]
    done = {key[:3] for key, found in best.items() if found[2]}
    # A kernel that gpugrad.compile generated has its sizes in its text; those of kernels/ take any.
    missing = sorted({f"{key[1]} (groups of {key[2]})" for key in best
                      if key[:3] not in done and "CAT(NAME" in sources[key[0]][0]})  # fmt: skip
    return jobs, len({key[0] for key, found in best.items() if found[2]}), missing


def replay(path: Path, plain: bool) -> int:
    """In a process under oclgrind: do the launches of the file, and tell after each what came into the log. ``plain``:
    compiled without optimisation."""
    import pyopencl as cl

    with open(path, "rb") as file:
        jobs: list[Job] = pickle.load(file)
    device = cl.get_platforms()[0].get_devices()[0]
    assert "Oclgrind" in device.platform.name, device.platform.name
    context = cl.Context([device])
    queue = cl.CommandQueue(context)
    memory = Memory(cl, context, queue)
    programs: dict[str, Any] = {}
    results = []
    before = 0
    log = path.with_suffix(".log")
    for source, options, name, local, groups, args in jobs:
        problem = ""
        try:
            if source not in programs:
                programs.clear()
                flags = ["-cl-std=CL1.2", *options, *(["-cl-opt-disable"] if plain else [])]
                programs[source] = cl.Program(context, source).build(flags, cache_dir=False)
            kernel = cl.Kernel(programs[source], name)
            buffers: dict[int, Any] = {}
            for i, arg in enumerate(args):
                if isinstance(arg, bytes):
                    kernel.set_arg(i, arg)
                    continue
                if id(arg) not in buffers:
                    buffers[id(arg)] = memory.buffer(arg)
                kernel.set_arg(i, buffers[id(arg)])
            cl.enqueue_nd_range_kernel(queue, kernel, (groups * local,), (local,))
            queue.finish()
        except (cl.Error, cl.RuntimeError) as error:
            problem = str(error)[:2000]
        with open(log) as file:
            file.seek(before)
            problem += file.read()
            before = file.tell()
        results.append(problem)
    with open(path.with_suffix(".done"), "wb") as file:
        pickle.dump(results, file)
    return 0


#: up to which size what of a buffer is unwritten is told to oclgrind word by word, which takes its time
MOST_WORDS = 1024
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


class Pool:
    """Processes under oclgrind, each with a part of the launches."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.folder = folder
        self.processes = processes
        self.started = 0

    def check(self, jobs: list[Job], size: int, plain: bool) -> list[tuple[Job, str]]:
        """The launches after which something was in the log, with that."""
        problems: list[tuple[Job, str]] = []
        waiting = [jobs[i : i + size] for i in range(0, len(jobs), size)]
        running: dict[subprocess.Popen[bytes], tuple[Path, list[Job]]] = {}
        while waiting or running:
            while waiting and len(running) < self.processes:
                part = waiting.pop()
                process, path = self._start(part, plain)
                running[process] = path, part
            time.sleep(0.02)
            for process in [p for p in running if p.poll() is not None]:
                path, part = running.pop(process)
                done = path.with_suffix(".done")
                if done.exists():
                    with open(done, "rb") as file:
                        problems += [(j, text) for j, text in zip(part, pickle.load(file), strict=True) if text.strip()]
                elif len(part) > 1:  # find out which launch it was
                    waiting += [[job] for job in part]
                else:
                    text = path.with_suffix(".log").read_text() + path.with_suffix(".err").read_text()
                    problems.append((part[0], f"the process ended with status {process.returncode}\n{text}"))
        return problems

    def _start(self, jobs: list[Job], plain: bool) -> tuple[subprocess.Popen[bytes], Path]:
        path = self.folder / f"{self.started}.jobs"
        self.started += 1
        with open(path, "wb") as file:
            pickle.dump(jobs, file)
        log = path.with_suffix(".log")
        log.touch()
        command = ["oclgrind", "--num-threads", "1", "--data-races", "--uninitialized", "--log", str(log)]
        command += [sys.executable, __file__, "--replay", str(path), *(["--plain"] if plain else [])]
        with open(path.with_suffix(".err"), "wb") as errors:
            return subprocess.Popen(command, stdout=errors, stderr=errors), path


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("record", nargs="*", help="folders written under GPUGRAD_TEST_LAUNCHES")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("-k", default="", help="only kernels whose name has this in it")
    parser.add_argument("--replay", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help="compile without optimisation: slow, and exact at once")
    options = parser.parse_args()
    if options.replay:
        return replay(Path(options.replay), options.plain)
    if shutil.which("oclgrind") is None:
        print("check_oclgrind: oclgrind is not installed (on Debian and Ubuntu: apt-get install oclgrind)")
        return 1
    jobs, specialisations, missing = read(options.record)
    jobs = [job for job in jobs if options.k in job[2]]
    if not jobs:
        print("check_oclgrind: the record is empty", file=sys.stderr)
        return 1
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        pool = Pool(Path(name), options.jobs)
        problems = pool.check(jobs, 50, options.plain)
        again = 0
        if not options.plain:
            # Optimised code has instructions that oclgrind cannot follow, and shuffles in which it loses what was
            # initialised. Code that was not optimised says what is so.
            again = len(problems)
            problems = pool.check([job for job, _ in problems], 5, True)
    report(problems)
    if missing:
        print(f"seen only in launches too large for this: {', '.join(missing)}")
    seconds = time.perf_counter() - start
    kernels = len({(job[0], job[2]) for job in jobs})
    print(
        f"{len(jobs)} launches of {kernels} kernels ({specialisations} specialisations) under oclgrind in "
        f"{seconds:.0f} s, {again} of them twice; {len(problems)} with findings, {len(missing)} kernels not done"
    )
    return 1 if problems or missing else 0


def report(problems: list[tuple[Job, str]]) -> None:
    """Print what was found, one of each kind in full."""
    kinds: dict[str, list[tuple[Job, str]]] = collections.defaultdict(list)
    for job, text in problems:
        place = re.search(r"At line \d+[^\n]*\n([^\n]*)", text)
        kinds[text.strip().splitlines()[0] + " | " + (place[1].strip() if place else "")].append((job, text))
    for found in kinds.values():
        job, text = found[0]
        shape = "CPU" if "#define GG_CPU 1" in job[0] else "GPU"
        others = sorted({j[2] for j, _ in found})
        print(f"--- {job[2]}, {job[4]} groups of {job[3]}, {shape} shapes; {len(found)} launches like it: "
              f"{', '.join(others[:8])}\n{text[:1500]}", file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
