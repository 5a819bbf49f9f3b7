"""Learn to read handwritten digits.

    python examples/train_mnist.py --model cnn --device auto --data auto

Prints the test accuracy after each epoch and writes a run folder: loss and accuracy curves,
the confusion matrix and the misread digits as PNG, the weights as safetensors, the settings and
results as JSON, and a checkpoint. Ctrl-C stops after the current step with everything saved;
``--resume`` goes on from there and ends with the same bits (on the CPU) as a run that was never
interrupted.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    StopSignal,
    device_name,
    find_checkpoint,
    load_checkpoint,
    plot_confusion,
    plot_curves,
    plot_misread,
    run_folder,
    save_checkpoint,
    write_json,
)

import gpugrad as gg
from gpugrad import nn
from gpugrad.datasets import DatasetNotFoundError, Images, digits, mnist
from gpugrad.utils.data import DataLoader, TensorDataset

# Per data set and model, unless the command line says otherwise.
DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("mnist", "cnn"): {"epochs": 4, "batch_size": 128, "lr": 4e-3},
    ("mnist", "mlp"): {"epochs": 5, "batch_size": 128, "lr": 2e-3},
    ("digits", "cnn"): {"epochs": 40, "batch_size": 32, "lr": 4e-3},
    ("digits", "mlp"): {"epochs": 40, "batch_size": 32, "lr": 3e-3},
}
KIND = "mnist"  # of its checkpoints
REPORT_EVERY = 20  # steps; reading the loss makes the host wait for the device


def build_model(kind: str, height: int, width: int, classes: int) -> nn.Module:
    """The network for images ``[n, 1, height, width]``: logits ``[n, classes]``."""
    if kind == "mlp":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(height * width, 256),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(128, classes),
        )
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 24, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(24 * (height // 4) * (width // 4), classes),
    )


def to_input(images: gg.Tensor, settings: dict[str, Any]) -> gg.Tensor:
    """uint8 ``[n, h, w]`` as normalised float32 ``[n, 1, h, w]``."""
    return (images.float().unsqueeze(1) - settings["mean"]) / settings["std"]


def on_device(images: np.ndarray, labels: np.ndarray, device: gg.Device) -> TensorDataset:
    """A data set that lies on ``device`` whole, as bytes: batches are then picked there."""
    return TensorDataset(gg.from_numpy(images).to(device), gg.from_numpy(labels).to(device))


def evaluate(model: nn.Module, data: TensorDataset, settings: dict[str, Any]) -> np.ndarray:
    """The logits ``[n, classes]`` of all images."""
    model.eval()
    with gg.no_grad():
        scores = [model(to_input(images, settings)).numpy(force=True) for images, _ in DataLoader(data, 1000)]
    model.train()
    return np.concatenate(scores)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Up in a straight line for a fifth of the training, then down along a cosine to nothing
    (after Smith, "Super-convergence", 2018)."""
    rise = max(1, steps // 5)
    if step < rise:
        return peak * (0.04 + 0.96 * step / rise)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


class Trainer:
    """Model, optimizer, position and history: all that a checkpoint holds."""

    def __init__(self, data: Images, settings: dict[str, Any], device: gg.Device, folder: Path) -> None:
        self.data, self.settings, self.device, self.folder = data, settings, device, folder
        gg.manual_seed(settings["seed"])
        height, width = data.train_images.shape[1:]
        classes = int(data.train_labels.max()) + 1
        self.model = build_model(settings["model"], height, width, classes).to(device)
        self.optimizer = gg.optim.AdamW(self.model.parameters(), lr=settings["lr"], weight_decay=0.01)
        self.batches = DataLoader(
            on_device(data.train_images, data.train_labels, device),
            batch_size=settings["batch_size"],
            shuffle=True,
            drop_last=True,  # the rest, less than a batch, waits for the next shuffle
            seed=settings["seed"],
        )
        self.test = on_device(data.test_images, data.test_labels, device)
        if not len(self.batches):
            raise ValueError(f"--batch-size {settings['batch_size']} is more than the {len(data.train_labels)} images")
        self.epoch = 0  # epochs finished
        self.step = 0  # steps done in the epoch at hand
        self.seconds = 0.0  # spent training
        self.history: dict[str, list[float]] = {"step": [], "loss": [], "accuracy": [], "seconds": []}
        self.pending = gg.zeros((), device=device)  # loss not yet in the history

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": gg.get_rng_state(),
            "pending": self.pending,
            "position": {"epoch": self.epoch, "step": self.step, "seconds": self.seconds},
            "history": self.history,
            "settings": self.settings,
        }
        save_checkpoint(state, KIND, self.folder / "checkpoint.safetensors")

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        gg.set_rng_state(state["random"])
        self.pending = state["pending"].to(self.device)
        self.epoch, self.step, self.seconds = (state["position"][key] for key in ("epoch", "step", "seconds"))
        self.history = state["history"]

    def run(self) -> bool:
        """Train to the end, or until Ctrl-C; says whether it came to the end."""
        with StopSignal() as stop:
            self.save()  # from here on there is always something to resume from
            while self.epoch < self.settings["epochs"]:
                began = time.perf_counter()
                finished = self._train_epoch(stop)
                self.seconds += time.perf_counter() - began
                if not finished:
                    self.save()
                    return False
                scores = evaluate(self.model, self.test, self.settings)
                accuracy = float(np.mean(scores.argmax(axis=1) == self.data.test_labels))
                self.history["accuracy"].append(accuracy)
                self.history["seconds"].append(self.seconds)
                self.epoch, self.step = self.epoch + 1, 0
                self.save()
                print(
                    f"epoch {self.epoch}/{self.settings['epochs']}: loss {self.history['loss'][-1]:.4f}, "
                    f"test accuracy {100 * accuracy:.2f}%, {self.seconds:.1f} s of training",
                    flush=True,
                )
        return True

    def _train_epoch(self, stop: StopSignal) -> bool:
        from tqdm import tqdm

        per_epoch = len(self.batches)
        total = per_epoch * self.settings["epochs"]
        bar = tqdm(
            desc=f"epoch {self.epoch + 1}", total=per_epoch, initial=self.step, unit="step", leave=False, disable=None
        )
        with bar:
            self.batches.set_epoch(self.epoch)  # which fixes the order, also for a run that resumes
            for images, labels in islice(self.batches, self.step, None):
                if stop.seen:
                    return False
                done = self.epoch * per_epoch + self.step
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(done, total, self.settings["lr"])
                loss = nn.functional.cross_entropy(self.model(to_input(images, self.settings)), labels)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.pending = self.pending + loss.detach()
                self.step += 1
                if self.step % REPORT_EVERY == 0 or self.step == per_epoch:
                    steps = done + 1 - (self.history["step"][-1] if self.history["step"] else 0)
                    self.history["step"].append(done + 1)
                    self.history["loss"].append(self.pending.item() / steps)
                    self.pending = gg.zeros((), device=self.device)
                    bar.update(self.step - bar.n)
                    bar.set_postfix(loss=f"{self.history['loss'][-1]:.4f}")
        return True

    def finish(self) -> None:
        """Write weights, pictures and results."""
        data = self.data
        scores = evaluate(self.model, self.test, self.settings)
        gg.save(self.model.state_dict(), self.folder / "model.safetensors")
        title = f"{self.settings['model']} on {self.settings['data']}, {self.device}"
        plot_curves(self.history, title, self.folder / "curves.png")
        plot_confusion(data.test_labels, scores.argmax(axis=1), self.folder / "confusion.png")
        plot_misread(data.test_images, data.test_labels, scores, self.folder / "misread.png")
        write_json(
            self.folder / "results.json",
            {"test_accuracy": self.history["accuracy"][-1], "training_seconds": self.seconds, "history": self.history},
        )


def load_data(choice: str) -> tuple[str, Images]:
    """The data set that ``--data`` means, and which defaults suit it ("mnist" or "digits")."""
    if choice == "digits":
        return "digits", digits()
    if choice == "mnist":
        return "mnist", mnist()
    if choice != "auto":
        return "mnist", mnist(choice)
    try:
        return "mnist", mnist()
    except DatasetNotFoundError as error:
        reason = str(error).split(": put the files")[0]
        print(f"{reason}; training on scikit-learn's 1,797 scanned digits instead")
        return "digits", digits()


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Learn to read handwritten digits.")
    parser.add_argument("--model", choices=["mlp", "cnn"], help="default: cnn")
    parser.add_argument("--device", default="auto", help="auto, cpu, opencl[:i] or cuda[:i]")
    parser.add_argument("--data", help="auto (default), mnist, digits, or a folder with four IDX files")
    parser.add_argument("--epochs", type=int, help="default: 4 or 5 on MNIST, 40 on the digits")
    parser.add_argument("--batch-size", type=int, help="default: 128 on MNIST, 32 on the digits")
    parser.add_argument("--lr", type=float, help="highest learning rate")
    parser.add_argument("--seed", type=int, help="default: 0")
    parser.add_argument("--out", metavar="DIR", help="run folder, default runs/<model>-<device>-<time>")
    parser.add_argument(
        "--resume", nargs="?", const="", metavar="PATH", help="a run folder or its checkpoint; the newest if left out"
    )
    return parser.parse_args(arguments)


def prepare(options: argparse.Namespace) -> Trainer:
    """Everything up to the first step."""
    device = gg.device(options.device)
    given = {key: value for key, value in vars(options).items() if value is not None}
    given = {key: given[key] for key in ("model", "data", "epochs", "batch_size", "lr", "seed") if key in given}
    for key in ("epochs", "batch_size"):
        if given.get(key, 1) < 1:
            raise ValueError(f"--{key.replace('_', '-')} must be at least 1, not {given[key]}")
    state = None
    if options.resume is not None:
        checkpoint = find_checkpoint(options.resume, KIND)
        state = load_checkpoint(checkpoint, KIND)
        changed = [key for key in given if key != "epochs" and given[key] != state["settings"][key]]
        if changed:
            raise ValueError(f"--resume keeps the run's settings; leave out {', '.join('--' + key for key in changed)}")
        settings = state["settings"] | given
        folder = Path(options.out) if options.out else checkpoint.parent
        data = load_data(settings["data"])[1]
    else:
        kind, data = load_data(given.get("data", "auto"))
        model = given.get("model", "cnn")
        settings = {"model": model, "seed": 0, **DEFAULTS[kind, model], **given}
        settings["data"] = kind if settings.get("data", "auto") == "auto" else settings["data"]
        pixels = data.train_images
        settings |= {"mean": float(pixels.mean()), "std": float(pixels.std())}
        folder = run_folder(options.out, f"{model}-{str(device).replace(':', '')}")
    trainer = Trainer(data, settings, device, folder)
    if state is not None:
        trainer.restore(state)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "settings.json", settings | {"device": str(device), "gpugrad": gg.__version__})
    count = sum(p.numel() for p in trainer.model.parameters())
    print(
        f"{settings['model']} with {count:,} parameters, {len(data.train_labels):,} images of {settings['data']}, "
        f"on {device_name(device)}"
    )
    return trainer


def main(arguments: list[str] | None = None) -> int:
    try:
        trainer = prepare(parse_arguments(arguments))
        finished = trainer.run()
    except (gg.GpugradError, OSError, ImportError, ValueError) as error:
        print(f"train_mnist: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train_mnist: interrupted; the last checkpoint, if any, is as it was", file=sys.stderr)
        return 130
    if not finished:
        print(
            f"stopped in epoch {trainer.epoch + 1} after {trainer.step} steps; go on with: "
            f"python examples/train_mnist.py --device {trainer.device} --resume {trainer.folder}"
        )
        return 130
    trainer.finish()
    print(f"wrote {trainer.folder}/: model.safetensors, curves.png, confusion.png, misread.png, results.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
