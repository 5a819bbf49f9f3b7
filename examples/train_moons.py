"""Separate two interleaved half moons with a small network and the max-margin loss of an SVM.

    python examples/train_moons.py --device auto --out runs/moons

Writes the decision boundary as PNG. The loss is the mean of ``max(0, 1 - y * score)`` with
y = -1 or 1 (Cortes and Vapnik, "Support-vector networks", 1995) plus L2 on the weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from common import device_name, draw_boundary, pyplot, run_folder, save_figure

import gpugrad as gg
from gpugrad import nn
from gpugrad.datasets import moons


def plot_boundary(model: nn.Module, points: np.ndarray, labels: np.ndarray, device: gg.Device, path: Path) -> None:
    """The points over the model's score, with the boundary (0) and the margins (-1, 1)."""

    def score(grid: np.ndarray) -> np.ndarray:
        with gg.no_grad():
            return model(gg.from_numpy(grid).to(device)).to_numpy()

    figure, axes = pyplot().subplots(figsize=(5.8, 4), layout="constrained")
    draw_boundary(axes, score, points, labels)
    save_figure(figure, path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Two moons, a small network and a max-margin loss.")
    parser.add_argument("--device", default="auto", help="auto, cpu, opencl[:i] or cuda[:i]")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", metavar="DIR", help="run folder, default runs/moons-<device>-<time>")
    options = parser.parse_args(arguments)
    try:
        device = gg.device(options.device)
        points, labels = moons(options.points, options.noise, options.seed)
    except (gg.GpugradError, ImportError, ValueError) as error:
        print(f"train_moons: {error}", file=sys.stderr)
        return 1

    gg.manual_seed(options.seed)
    x = gg.from_numpy(points).to(device)
    signs = gg.from_numpy(2 * labels - 1).to(device).float()
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))
    model.to(device)
    optimizer = gg.optim.Adam(model.parameters(), lr=0.02)
    print(f"{options.points} points on {device_name(device)}")
    for step in range(1, options.steps + 1):
        scores = model(x)
        penalty = sum((p * p).sum() for p in model.parameters())
        loss = nn.functional.max_margin_loss(scores, signs) + 1e-4 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == options.steps:
            with gg.no_grad():
                accuracy = ((model(x) > 0) == (signs > 0)).float().mean().item()
            print(f"step {step}: loss {loss.item():.4f}, accuracy {100 * accuracy:.1f}%")

    folder = run_folder(options.out, f"moons-{str(device).replace(':', '')}")
    folder.mkdir(parents=True, exist_ok=True)
    plot_boundary(model, points, labels, device, folder / "boundary.png")
    print(f"wrote {folder / 'boundary.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
