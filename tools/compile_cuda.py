"""Compile recorded kernel specialisations with NVRTC, for every architecture asked for. Needs no GPU.

A run with ``GPUGRAD_RECORD_KERNELS=FILE`` in the environment appends to FILE what it compiles; this compiles the
same specialisations for CUDA, as the ``cuda`` backend would:

    GPUGRAD_RECORD_KERNELS=build/kernels.jsonl python -m pytest tests
    python tools/compile_cuda.py build/kernels.jsonl --arch sm_75 sm_80 sm_90 sm_100

``kernels/attention_mma.c``, which only CUDA devices run, is compiled as well.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ml_dtypes
import numpy as np

from gpugrad.backends import kernel_attention, kernel_source
from gpugrad.backends.base import StridedArray
from gpugrad.backends.kernel_source import Specialization

Failure = tuple[Specialization, str, str]


def tensor_core_attention() -> list[Specialization]:
    """The specialisations of ``kernels/attention_mma.c``: every dtype, width and mask; 64-bit indices without masks."""
    found = []
    kinds = ((None, "i32"), (np.bool_, "i32"), (np.float32, "i32"), (None, "i64"))
    for half, width, (mask, index) in product((np.float16, ml_dtypes.bfloat16), kernel_attention.MMA_WIDTHS, kinds):
        dtype = np.dtype(half)
        name = kernel_source.symbol("attention_mma", kernel_source.SHORT[dtype])
        given = None if mask is None else StridedArray(None, 0, (), (), np.dtype(mask))
        defines = kernel_attention.attention_defines(name, dtype, width, width, given, index)
        defines |= {"BQ": 64, "BK": kernel_attention.mma_rows(width)}
        kernels = tuple(f"{name}_{k}" for k in ("forward", "queries", "keys"))
        found.append(Specialization("attention_mma", tuple((k, str(v)) for k, v in defines.items()), kernels))
    return found


def has_tensor_cores(arch: str) -> bool:
    """Whether an architecture has what ``kernels/attention_mma.c`` is written for."""
    return int("".join(c for c in arch if c.isdigit())) >= 80


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
    tasks = [*product(found, options.arch)]
    tasks += product(tensor_core_attention(), [arch for arch in options.arch if has_tensor_cores(arch)])
    tasks = list(dict.fromkeys(tasks))
    start = time.perf_counter()
    kernels, failures = 0, []
    with ProcessPoolExecutor(options.jobs) as pool:
        for count, failure in pool.map(compile_one, tasks, chunksize=16):
            kernels += count
            if failure:
                failures.append(failure)
    for specialization, arch, log in failures[:5]:
        defines = "\n".join(f"#define {name} {value}" for name, value in specialization.defines)
        print(f"--- {specialization.family} for {arch}\n{defines}\n{log[:2000]}\n", file=sys.stderr)
    seconds = time.perf_counter() - start
    total = sum(len(s.kernels) for s, _ in tasks)
    print(f"{total} kernels ({len(tasks)} programs, of {len({s for s, _ in tasks})} specialisations for "
          f"{' '.join(options.arch)}) compiled in {seconds:.0f} s, {len(failures)} failures")  # fmt: skip
    return 1 if failures or kernels != total else 0


if __name__ == "__main__":
    sys.exit(main())
