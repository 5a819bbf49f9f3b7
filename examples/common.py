"""What the training examples share: run folders, pictures, and stopping politely."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import gpugrad as gg
from gpugrad.files import atomic_path
from gpugrad.io import load_metadata

INK, ACCENT, SOFT = "#22303c", "#d1495b", "#2e86ab"


def run_folder(given: str | None, name: str) -> Path:
    """Where a run's files go: ``given``, or ``runs/<name>-<time>``."""
    return Path(given) if given else Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def device_name(device: gg.Device) -> str:
    """The device with its product name, for people to read."""
    names = [info.name for found, info in gg.devices() if found == device]
    return f"{device} ({names[0].strip()})" if names else str(device)


class StopSignal:
    """Within the block, Ctrl-C (or SIGTERM) only sets ``seen``, so that a training step is
    finished before its state is saved. A second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.seen = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True


def newest(pattern: str) -> list[Path]:
    """The files matching ``runs/<pattern>``, those first that were written last."""
    return sorted(Path("runs").glob(pattern), key=os.path.getmtime, reverse=True)


def save_checkpoint(state: dict[str, Any], kind: str, path: Path) -> None:
    """Write ``state``, atomically. ``kind``: whose checkpoint it is."""
    gg.save(state | {"kind": kind}, path, metadata={"kind": kind})


def find_checkpoint(given: str, kind: str) -> Path:
    """The checkpoint that ``--resume`` means: a file, the one in a folder, or where nothing is given the newest of this
    kind in the folders of ``runs/``. Raises FileNotFoundError."""
    if not given:
        for path in newest("*/checkpoint.safetensors"):
            if load_metadata(path).get("kind") == kind:
                return path
        raise FileNotFoundError(f"--resume: there is no checkpoint of kind {kind} under runs/ to go on from")
    path = Path(given)
    path = path / "checkpoint.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"--resume: {path} does not exist")
    return path


def load_checkpoint(path: Path, kind: str) -> dict[str, Any]:
    """What :func:`save_checkpoint` wrote, on the host. Raises ValueError where it is another program's."""
    state = gg.load(path, device="cpu")
    found = state.get("kind") if isinstance(state, dict) else None
    if found != kind:
        raise ValueError(f"--resume: {path} is no checkpoint of kind {kind}" + (f" but of {found}" if found else ""))
    return state


# -- pictures ------------------------------------------------------------------


def pyplot(backend: str | None = "Agg") -> Any:
    """matplotlib's pyplot in the examples' style, drawing to files only; ``backend=None``: as it is set up,
    for instance by a notebook."""
    import matplotlib

    if backend is not None:
        matplotlib.use(backend)
    import matplotlib.pyplot as plt

    plt.rcParams.update({
        "figure.dpi": 110, "savefig.bbox": "tight", "font.size": 10, "axes.edgecolor": INK, "axes.labelcolor": INK,
        "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e8eb", "axes.axisbelow": True,
    })  # fmt: skip
    return plt


def save_figure(figure: Any, path: Path) -> None:
    """Write ``figure`` as PNG, atomically, and let go of it."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    pyplot().close(figure)


def draw_boundary(
    axes: Any, score: Callable[[np.ndarray], np.ndarray], points: np.ndarray, labels: np.ndarray, cells: int = 200
) -> None:
    """Labelled ``points`` ``[n, 2]`` over a model's score, with the boundary (0) and the margins (-1 and 1).

    ``score`` takes points ``[m, 2]`` and returns ``[m]``; it is asked for a grid of ``cells`` by 4/5 of that."""
    low, high = points.min(axis=0) - 0.4, points.max(axis=0) + 0.4
    x, y = np.meshgrid(np.linspace(low[0], high[0], cells), np.linspace(low[1], high[1], 4 * cells // 5))
    scores = score(np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)).reshape(x.shape)
    shades = axes.imshow(
        scores, extent=(low[0], high[0], low[1], high[1]), origin="lower", aspect="auto", interpolation="bilinear",
        cmap="RdBu", vmin=-3, vmax=3, alpha=0.45,
    )  # fmt: skip
    axes.contour(x, y, scores, levels=[-1, 0, 1], colors=INK, linewidths=[0.7, 1.6, 0.7], linestyles=["--", "-", "--"])
    for label, color, name in ((1, SOFT, "+1"), (0, ACCENT, "\u22121")):
        chosen = points[labels == label]
        axes.scatter(*chosen.T, color=color, s=18, edgecolors="white", linewidths=0.5, label=name)
    axes.grid(False)
    axes.set(xlabel="$x_1$", ylabel="$x_2$")
    axes.legend(title="class", loc="upper right", framealpha=0.85, fontsize=8, title_fontsize=8)
    axes.figure.colorbar(shades, ax=axes, label="score", ticks=range(-3, 4), extend="both")


def plot_curves(history: dict[str, list[float]], title: str, path: Path) -> None:
    """Training loss by step, and test accuracy after each epoch."""
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(history["step"], history["loss"], color=SOFT, linewidth=1.2)
    left.set(xlabel="step", ylabel="training loss", yscale="log", title=title)
    epochs = range(1, len(history["accuracy"]) + 1)
    right.plot(epochs, [100 * a for a in history["accuracy"]], "o-", color=ACCENT, markersize=4)
    right.set(xlabel="epoch", ylabel="test accuracy (%)", title=f"{100 * history['accuracy'][-1]:.2f}% at the end")
    right.xaxis.get_major_locator().set_params(integer=True)
    save_figure(figure, path)


def plot_confusion(labels: np.ndarray, predicted: np.ndarray, path: Path) -> None:
    """How often each digit (row) was read as which (column)."""
    figure, axes = pyplot().subplots(figsize=(5, 5))
    draw_confusion(axes, labels, predicted)
    save_figure(figure, path)


def draw_confusion(axes: Any, labels: np.ndarray, predicted: np.ndarray) -> None:
    """The confusion matrix: a row for what each image is, a column for what it was read as."""
    classes = int(max(labels.max(), predicted.max())) + 1
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # the root, so that rare mistakes show
    for row, column in np.argwhere(counts):
        color = "white" if shares[row, column] > 0.4 else INK
        axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=7, color=color)
    axes.set(xticks=range(classes), yticks=range(classes), xlabel="read as", ylabel="is")
    axes.grid(False)
    axes.set_title(f"{(labels != predicted).sum()} of {len(labels)} misread")


def plot_misread(images: np.ndarray, labels: np.ndarray, scores: np.ndarray, path: Path, most: int = 40) -> None:
    """The misread images, those the model was surest of first."""
    predicted = scores.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    margin = scores[wrong].max(axis=1) - scores[wrong, labels[wrong]]
    wrong = wrong[np.argsort(-margin, kind="stable")][:most]
    columns = 10
    rows = max(1, -(-len(wrong) // columns))
    figure, grid = pyplot().subplots(rows, columns, figsize=(columns * 0.9, rows * 1.1), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, i in zip(grid.flat, wrong, strict=False):
        axes.imshow(images[i], cmap="gray_r")
        axes.set_title(f"{labels[i]} read as {predicted[i]}", fontsize=6.5, pad=2)
    if not len(wrong):
        figure.suptitle("none was misread")
    save_figure(figure, path)
