"""The curve of a training run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import ACCENT, SOFT, pyplot, save_figure


def smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of each value and those up to ``width`` before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (sums[ends] - sums[starts]) / (ends - starts)


def plot_loss(losses: list[float], validation: list[tuple[int, float]], title: str, path: Path) -> None:
    """Training loss of every step with its running mean, and the evaluations, as PNG."""
    figure, axes = pyplot().subplots(figsize=(6.4, 3.6), layout="constrained")
    steps, values = np.arange(1, len(losses) + 1), np.array(losses)
    axes.plot(steps, values, color=SOFT, linewidth=0.6, alpha=0.3)
    axes.plot(steps, smoothed(values, max(1, len(values) // 50)), color=SOFT, linewidth=1.4, label="training")
    if validation:
        axes.plot(*zip(*validation, strict=True), "o-", color=ACCENT, markersize=4, label="validation")
        axes.annotate(f"{validation[-1][1]:.3f}", validation[-1], (0, 8), textcoords="offset points", ha="center")
    axes.set(xlabel="step", ylabel="loss, nats per token", title=title)
    axes.legend()
    save_figure(figure, path)
