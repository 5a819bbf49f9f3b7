"""Two half moons told apart by a network of single numbers, each a ``gg.Value``.

    python examples/moons_of_values.py --out runs/values

The same task and loss as ``train_moons.py``, to look at rather than to be fast: every number of every neuron is a
node of the graph. Writes the decision boundary as PNG, and one neuron's graph as SVG (without Graphviz: its text).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from common import draw_boundary, pyplot, run_folder, save_figure

import gpugrad as gg
from gpugrad import Value, nn, viz
from gpugrad.datasets import moons


def loss_and_accuracy(model: nn.MLP, points: np.ndarray, signs: np.ndarray) -> tuple[Value, float]:
    """The mean of ``max(0, 1 - y * score)`` plus L2 on the parameters, and the share of points on the right side."""
    scores = [model(point) for point in points]
    losses = [(1 - int(y) * score).relu() for y, score in zip(signs, scores, strict=True)]
    penalty = 1e-4 * sum(p * p for p in model.parameters())
    right = [(score.data > 0) == (y > 0) for y, score in zip(signs, scores, strict=True)]
    return sum(losses) / len(losses) + penalty, float(np.mean(right))


def plot_boundary(model: nn.MLP, points: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """The points over the model's score, with the boundary (0) and the margins (-1, 1)."""

    def score(grid: np.ndarray) -> np.ndarray:
        with gg.no_grad():
            return np.array([model(point).data for point in grid])

    figure, axes = pyplot().subplots(figsize=(5.8, 4), layout="constrained")
    draw_boundary(axes, score, points, labels, cells=40)
    axes.set_title(f"{len(model.parameters())} parameters, each a Value")
    save_figure(figure, path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Two moons and a network of single numbers.")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--hidden", type=int, nargs="*", default=[8, 8], metavar="N", help="neurons of each layer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", metavar="DIR", help="run folder, default runs/values-<time>")
    options = parser.parse_args(arguments)
    try:
        points, labels = moons(options.points, 0.1, seed=1)
    except (ImportError, ValueError) as error:
        print(f"moons_of_values: {error}", file=sys.stderr)
        return 1

    gg.manual_seed(options.seed)
    model = nn.MLP(2, [*options.hidden, 1])
    print(f"{len(model.parameters())} parameters, {options.points} points")
    for step in range(1, options.steps + 1):
        loss, accuracy = loss_and_accuracy(model, points, 2 * labels - 1)
        model.zero_grad()
        loss.backward()
        rate = 1 - 0.9 * (step - 1) / options.steps
        for p in model.parameters():
            p.data -= rate * p.grad
        if step % 10 == 0 or step == options.steps:
            print(f"step {step}: loss {loss.data:.4f}, accuracy {100 * accuracy:.1f}%")

    folder = run_folder(options.out, "values")
    folder.mkdir(parents=True, exist_ok=True)
    plot_boundary(model, points, labels, folder / "boundary.png")
    neuron = model.layers[0].neurons[0]
    activation = neuron(points[0])
    activation.backward()
    names = {"w0": neuron.w[0], "w1": neuron.w[1], "b": neuron.b}
    picture = viz.graph(activation, names, rankdir="LR")
    try:
        drawn = picture.save(folder / "neuron.svg")
    except RuntimeError as error:  # Graphviz is missing
        print(error)
        drawn = picture.save(folder / "neuron.dot")
    print(f"wrote {folder / 'boundary.png'} and {drawn}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
