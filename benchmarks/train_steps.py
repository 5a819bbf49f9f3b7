"""Time of a training step of the two MNIST models, gpugrad against PyTorch, in one run.

    python -m benchmarks.train_steps --device cpu --steps 30 --threads 2

Both start from the same weights and see the same batch; the steps alternate, so that a busy machine
disturbs both alike. Checks that the losses of the first steps agree, prints medians and their ratio, and with
``--json FILE`` writes them with what they were measured on. Needs the extra ``parity`` (PyTorch, CPU).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gpugrad as gg


def mlp(nn: Any) -> Any:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def cnn(nn: Any) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1568, 10),
    )  # fmt: skip


def stepper(lib: Any, model: Any, x: Any, target: Any) -> Callable[[], float]:
    optimizer = lib.optim.Adam(model.parameters(), lr=1e-3)
    loss_of = lib.nn.CrossEntropyLoss()

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of(model(x), target)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def compare(build: Callable[[Any], Any], device: str, steps: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    images = rng.random((128, 1, 28, 28), dtype=np.float32)
    labels = rng.integers(0, 10, 128)
    theirs = build(torch.nn)
    ours = build(gg.nn).to(device)
    ours.load_state_dict({k: gg.tensor(v.detach().numpy(), device=device) for k, v in theirs.state_dict().items()})
    pair = (
        stepper(gg, ours, gg.tensor(images, device=device), gg.tensor(labels, device=device)),
        stepper(torch, theirs, torch.tensor(images), torch.tensor(labels)),
    )
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(steps + 3):
        losses = []
        for which, step in enumerate(pair):
            start = time.perf_counter()
            losses.append(step())
            if i >= 3:  # the first steps compile and warm up
                times[which].append(time.perf_counter() - start)
        if i < 5:  # later on rounding differences grow, as the labels are random
            np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    mine, their = (statistics.median(t) * 1e3 for t in times)
    return {"gpugrad_ms": round(mine, 2), "torch_cpu_ms": round(their, 2), "ratio": round(mine / their, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = str(gg.device(args.device))
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "device": device,
        "device_name": next(info.name for d, info in gg.devices() if str(d) == device),
        "processor": platform.machine(),
        "torch": torch.__version__,
    }
    for build in (mlp, cnn):
        result[build.__name__] = compare(build, device, args.steps)
        print(f"{device} {build.__name__}: {result[build.__name__]}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
