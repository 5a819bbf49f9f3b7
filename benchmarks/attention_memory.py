"""How much memory attention takes, forward and backward, by the length of the sequence.

    python -m benchmarks.attention_memory --device cpu opencl

One head of width 64, each figure from a process of its own. Peaks are those of ``gpugrad.memory_stats``; on the CPU,
where it leaves out what a routine makes for itself and drops, those of ``tracemalloc``, which sees all that NumPy
allocates. Inputs and gradients are part of them.
"""

from __future__ import annotations

import argparse
import gc
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import gpugrad as gg
import gpugrad.nn.functional as F


def peak(device: str, length: int, plain: bool, width: int = 64, causal: bool = False) -> int:
    """Bytes at the peak of one forward and backward pass of ``[1, length, width]``; ``plain``: by the definition, with
    the matrix of weights."""
    gg.manual_seed(0)
    inputs = [gg.randn(1, length, width, device=device).requires_grad_() for _ in range(3)]
    backend = inputs[0]._backend

    def work() -> None:
        out = F.scaled_dot_product_attention(*inputs, is_causal=causal)
        out.backward(inputs[0].detach())
        backend.synchronize()

    offer = backend.offer
    if plain:
        backend.offer = lambda name: None if name.startswith("attention") else offer(name)
    try:
        gc.collect()
        if device.startswith("cpu"):
            backend.release_cached()
            before = sum(x.numel() * x.element_size() for x in inputs)
            tracemalloc.start()
            try:
                work()
                return before + tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        backend.synchronize()
        start = backend.memory_stats()["allocated"] - sum(x.numel() * x.element_size() for x in inputs)
        backend.reset_peak_memory_stats()
        work()
        return backend.memory_stats()["peak"] - start
    finally:
        if plain:
            del backend.offer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", nargs="+", default=["cpu"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[1024, 2048, 4096, 8192])
    options = parser.parse_args()
    print("| device | length | in tiles (MiB) | by the definition (MiB) |\n|---|---|---|---|")
    for device in options.device:
        for length in options.lengths:
            # A process each: what threads keep for their tiles would be missing from all figures but the first.
            with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
                tiles, whole = (pool.submit(peak, device, length, p).result() / 2**20 for p in (False, True))
            print(f"| {device} | {length:,} | {tiles:.1f} | {whole:.1f} |", flush=True)


if __name__ == "__main__":
    main()
