"""How long a residual sum and its norm take, forward and backward with gradients of both: in one pass
(``F.add_layer_norm``, ``F.add_rms_norm``) and by two operations, taking turns in one run.

    python -m benchmarks.added_norm_speed --device cpu opencl
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import gpugrad as gg
import gpugrad.nn.functional as F
from benchmarks.attention_speed import measure

#: rows and channels: of the tiny GPT, of GPT-2 with a batch of 8
SHAPES = [(768, 128), (8192, 768)]


def in_one(kind: str, x: Any, r: Any, w: Any, b: Any) -> Any:
    if kind == "layer_norm":
        return F.add_layer_norm(x, r, w.shape, w, b, 1e-5)
    return F.add_rms_norm(x, r, w.shape, w, 1e-5)


def in_two(kind: str, x: Any, r: Any, w: Any, b: Any) -> Any:
    s = x + r
    if kind == "layer_norm":
        return F.layer_norm(s, w.shape, w, b, 1e-5), s
    return F.rms_norm(s, w.shape, w, 1e-5), s


def ways(device: str, kind: str, arrays: list[np.ndarray]) -> dict[str, Callable[[], None]]:
    ours = [gg.tensor(a, device=device) for a in arrays]
    inputs, gradients = [x.requires_grad_() for x in ours[:4]], [ours[4].detach(), ours[5].detach()]
    backend = ours[0]._backend

    def taking(function: Callable[..., Any]) -> Callable[[], None]:
        def way() -> None:
            gg.autograd.grad(list(function(kind, *inputs)), inputs, gradients, allow_unused=True)
            backend.synchronize()

        return way

    return {"one pass": taking(in_one), "two": taking(in_two)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", nargs="+", default=["cpu"])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each shape")
    options = parser.parse_args()
    print("| device | norm | rows, channels | one pass (ms) | two operations |\n|---|---|---|---|---|")
    for device in options.device:
        for kind in ("layer_norm", "rms_norm"):
            for rows, channels in SHAPES:
                rng = np.random.default_rng(0)
                shapes = [(rows, channels)] * 2 + [(channels,)] * 2 + [(rows, channels)] * 2
                arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
                found = measure(ways(device, kind, arrays), options.seconds)
                one, two = found["one pass"], found["two"]
                shape = f"{rows:,}, {channels}"
                print(f"| {device} | {kind} | {shape} | {one:.2f} | {two:.2f} ({two / one:.2f}x) |", flush=True)


if __name__ == "__main__":
    main()
