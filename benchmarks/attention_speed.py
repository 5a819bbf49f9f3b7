"""How long attention takes, forward and backward: tile by tile, by the definition and, on the CPU, in PyTorch if it is
there, taking turns in one run.

    python -m benchmarks.attention_speed --device cpu opencl
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import gpugrad as gg
import gpugrad.nn.functional as F

#: seconds before each call: the threads of the library before may wait actively for more work, on our processors
REST = 0.01
#: batch, heads, length, width, causal
SHAPES = [(4, 12, 1024, 64, False), (4, 12, 1024, 64, True), (12, 4, 64, 32, False), (12, 4, 64, 32, True)]


def step(attention: Callable[..., Any], inputs: list[Any], causal: bool) -> None:
    attention(*inputs, is_causal=causal).backward(inputs[0].detach())
    for x in inputs:
        x.grad = None


def ways(device: str, arrays: list[np.ndarray], causal: bool) -> dict[str, Callable[[], None]]:
    ours = [gg.tensor(a, device=device).requires_grad_() for a in arrays]
    backend = ours[0]._backend
    offer = backend.offer

    def tiles() -> None:
        step(F.scaled_dot_product_attention, ours, causal)
        backend.synchronize()

    def definition() -> None:
        backend.offer = lambda name: None if name.startswith("attention") else offer(name)
        try:
            tiles()
        finally:
            del backend.offer

    found = {"tiles": tiles, "definition": definition}
    if device == "cpu":
        try:
            import torch
        except ImportError:
            return found
        theirs = [torch.from_numpy(a).requires_grad_() for a in arrays]
        found["PyTorch"] = lambda: step(torch.nn.functional.scaled_dot_product_attention, theirs, causal)
    return found


def measure(functions: dict[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """Milliseconds: of each the lower third of its times."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
        function()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, function in functions.items():
            time.sleep(REST)
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: sorted(found)[len(found) // 3] * 1e3 for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", nargs="+", default=["cpu"])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each shape")
    options = parser.parse_args()
    print(
        "| device | batch, heads, length, width | mask | tiles (ms) | definition | PyTorch |\n|---|---|---|---|---|---|"
    )
    for device in options.device:
        for batch, heads, length, width, causal in SHAPES:
            rng = np.random.default_rng(0)
            arrays = [rng.standard_normal((batch, heads, length, width)).astype(np.float32) for _ in range(3)]
            found = measure(ways(device, arrays, causal), options.seconds)
            rest = " | ".join(
                f"{found[n]:.2f} ({found[n] / found['tiles']:.2f}x)" if n in found else "-"
                for n in ("definition", "PyTorch")
            )
            mask = "causal" if causal else "-"
            print(
                f"| {device} | {batch}, {heads}, {length}, {width} | {mask} | {found['tiles']:.2f} | {rest} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
