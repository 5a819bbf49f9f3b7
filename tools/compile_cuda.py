"""Compile recorded kernel specialisations with NVRTC, for every architecture asked for. Needs no GPU.

A run with ``GPUGRAD_RECORD_KERNELS=FILE`` in the environment appends to FILE what it compiles; this compiles the
same specialisations for CUDA, as the ``cuda`` backend would:

    GPUGRAD_RECORD_KERNELS=build/kernels.jsonl python -m pytest tests
    python tools/compile_cuda.py build/kernels.jsonl --arch sm_75 sm_80 sm_90 sm_100
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpugrad.backends import kernel_source
from gpugrad.backends.kernel_source import Specialization

Failure = tuple[Specialization, str, str]


def compile_one(task: tuple[Specialization, str]) -> tuple[int, Failure | None]:
    """How many kernels of one specialisation compiled for one architecture, or the compiler's log."""
    from cuda.core import Program, ProgramOptions

    specialization, arch = task
    common = kernel_source.common_defines(kernel_source.GPU_SHAPE, fp64=True)
    source = kernel_source.assemble(specialization, "cuda", common)
    options = ProgramOptions(arch=arch, std="c++17", fma="GG_CONTRACT" in dict(specialization.defines), ftz=False,
                             prec_div=True, prec_sqrt=True, minimal=True, disable_warnings=True)  # fmt: skip
    try:
        code = Program(source, "c++", options).compile("cubin").code
    except Exception as error:  # NVRTC's own type carries the log in its text
        return 0, (specialization, arch, str(error))
    missing = [name for name in specialization.kernels if name.encode() not in code]
    if missing:
        return 0, (specialization, arch, f"the compiled code lacks {', '.join(missing)}")
    return len(specialization.kernels), None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("record", nargs="+", help="files written under GPUGRAD_RECORD_KERNELS")
    parser.add_argument("--arch", nargs="+", default=["sm_75", "sm_80", "sm_90", "sm_100"])
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()

    twins = (kernel_source.gpu_twin(s) for path in options.record for s in kernel_source.read_record(path))
    found = list(dict.fromkeys(twin for twin in twins if twin is not None))
    if not found:
        print("compile_cuda: the record is empty", file=sys.stderr)
        return 1
    start = time.perf_counter()
    kernels, failures = 0, []
    with ProcessPoolExecutor(options.jobs) as pool:
        for count, failure in pool.map(compile_one, product(found, options.arch), chunksize=16):
            kernels += count
            if failure:
                failures.append(failure)
    for specialization, arch, log in failures[:5]:
        defines = "\n".join(f"#define {name} {value}" for name, value in specialization.defines)
        print(f"--- {specialization.family} for {arch}\n{defines}\n{log[:2000]}\n", file=sys.stderr)
    seconds = time.perf_counter() - start
    total = sum(len(s.kernels) for s in found)
    print(f"{total} kernels ({len(found)} specialisations) x {len(options.arch)} architectures "
          f"({' '.join(options.arch)}) compiled in {seconds:.0f} s, {len(failures)} failures")  # fmt: skip
    return 1 if failures or kernels != total * len(options.arch) else 0


if __name__ == "__main__":
    sys.exit(main())
