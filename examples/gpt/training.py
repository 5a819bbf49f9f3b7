"""The training loop: schedule, evaluation, checkpoints, and what is shown of them."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import StopSignal, save_checkpoint, write_json

import gpugrad as gg
from gpt.files import save_model
from gpt.model import GPT
from gpt.pictures import plot_loss
from gpt.sampling import generate
from gpt.step import Step, make_optimizer
from gpt.text import Alphabet, Tokens

# All settings of the loop, and what they are unless the command line says otherwise.
DEFAULTS: dict[str, Any] = {
    "steps": 2000,
    "batch_size": 12,
    "accumulate": 1,
    "lr": 3e-3,
    "min_lr": 0.1,  # as a part of lr
    "warmup": 100,
    "beta2": 0.99,
    "weight_decay": 0.1,
    "clip": 1.0,
    "dtype": "float32",
    "compile": False,
    "seed": 0,
    "report_every": 10,
    "eval_every": 250,
    "eval_batches": 20,
    "sample_every": 500,
    "sample_length": 200,
    "save_every": 250,
}


def learning_rate(step: int, settings: dict[str, Any]) -> float:
    """Up in a straight line for ``warmup`` steps, then down along a cosine to ``min_lr`` of the highest
    (after Loshchilov and Hutter, "SGDR", 2017)."""
    peak, rise = settings["lr"], settings["warmup"]
    if step < rise:
        return peak * (step + 1) / (rise + 1)
    part = min(1.0, (step - rise) / max(1, settings["steps"] - rise))
    low = settings["min_lr"]
    return peak * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * part)))


class Trainer:
    """Model, optimizer, position and history: all that a checkpoint holds."""

    def __init__(
        self,
        model: GPT,
        tokens: Tokens,
        alphabet: Alphabet | None,
        settings: dict[str, Any],
        device: gg.Device,
        folder: Path,
        show: dict[str, Any] | None = None,
        kind: str = "gpt",
    ) -> None:
        """``settings``: those of DEFAULTS, and others that only go into the checkpoint. ``show``: what does not change
        the result, ``mfu`` and ``tensorboard``. ``kind``: of its checkpoints."""
        tokens.check(model.config.context)
        self.model, self.tokens, self.alphabet = model, tokens, alphabet
        self.settings, self.device, self.folder = settings, device, folder
        self.show, self.kind = show or {}, kind
        self.optimizer = make_optimizer(model, settings)
        self.train_step = Step(model, self.optimizer, device, settings)
        self.step = 0
        self.seconds = 0.0  # spent in steps
        self.losses: list[float] = []  # of every step
        self.norms: list[float] = []
        self.validation: list[tuple[int, float]] = []  # after how many steps, nats per token
        self._pending: list[tuple[gg.Tensor, gg.Tensor]] = []  # not read yet: reading waits for the device
        self._shown: dict[str, float] = {}  # by the last report
        self._board: Any = None
        self._bar: Any = None
        self._clock, self._clocked = 0.0, 0  # since when, and since which step, time is measured

    @property
    def tokens_per_step(self) -> int:
        return self.settings["accumulate"] * self.settings["batch_size"] * self.model.config.context

    # -- checkpoints -----------------------------------------------------------------
    def save(self) -> None:
        """Write the checkpoint. The order of the data is a function of seed and step, so the step stands for it."""
        self._read_losses()
        scaler = self.train_step.scaler
        state = {
            "config": self.model.config.as_dict(),
            "alphabet": None if self.alphabet is None else self.alphabet.as_json(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "random": gg.get_rng_state(),
            "position": {"step": self.step, "seconds": self.seconds},
            "history": {
                "losses": np.array(self.losses),
                "norms": np.array(self.norms),
                "validation": np.array(self.validation).reshape(-1, 2),
            },
            "settings": self.settings,
        }
        save_checkpoint(state, self.kind, self.folder / "checkpoint.safetensors")

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.train_step.scaler is not None:
            self.train_step.scaler.load_state_dict(state["scaler"])
        gg.set_rng_state(state["random"])
        self.step, self.seconds = state["position"]["step"], state["position"]["seconds"]
        history = {name: np.asarray(values) for name, values in state["history"].items()}
        self.losses, self.norms = history["losses"].tolist(), history["norms"].tolist()
        self.validation = [(int(step), loss) for step, loss in history["validation"].tolist()]

    # -- training --------------------------------------------------------------------
    def run(self) -> bool:
        """Train to the end, or until Ctrl-C; says whether it came to the end."""
        from tqdm import tqdm

        s = self.settings
        with (
            StopSignal() as stop,
            tqdm(total=s["steps"], initial=self.step, unit="step", disable=None, dynamic_ncols=True) as bar,
        ):
            self._bar = bar
            if not self.step:
                self._evaluate_and_tell(everything=False)
                self.save()  # from here on there is always something to resume from
            self.train_step.warm_up(*self._batch(0))
            self._start_clock()
            while self.step < s["steps"]:
                if stop.seen:
                    self.save()
                    return False
                rate = learning_rate(self.step, s)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                self._pending.append(self.train_step(*self._batch(self.step)))
                self.step += 1
                last = self.step == s["steps"]
                due = {name: last or self.step % s[f"{name}_every"] == 0 for name in ("report", "eval", "save")}
                sample = s["sample_every"] and (last or self.step % s["sample_every"] == 0)
                if any(due.values()) or sample:
                    self._report(rate)
                if due["eval"]:
                    self._evaluate_and_tell(everything=last)
                if sample and self.alphabet is not None:
                    self._tell(self._sample(self.alphabet))
                if due["save"]:
                    self.save()
                if due["eval"] or due["save"] or sample:
                    self._start_clock()
        if self._board is not None:
            self._board.close()
        return True

    def _batch(self, step: int) -> tuple[gg.Tensor, gg.Tensor]:
        s = self.settings
        arrays = self.tokens.batch(s["seed"], step, (s["accumulate"], s["batch_size"]), self.model.config.context)
        x, y = (gg.from_numpy(a).to(self.device) for a in arrays)
        return x, y

    @gg.no_grad()
    def evaluate(self, most: int | None = None) -> float:
        """Nats per token of the evaluation text: of all of it, or of ``most`` batches spread evenly over it."""
        total, count = gg.zeros((), device=self.device), 0
        half = self.train_step.dtype is not gg.float32
        self.model.eval()
        for arrays in self.tokens.evaluation(self.settings["batch_size"], self.model.config.context, most):
            x, y = (gg.from_numpy(a).to(self.device) for a in arrays)
            with gg.autocast(self.device.type, self.train_step.dtype, enabled=half):
                total = total + self.model.loss(x, y).float() * len(x)
            count += len(x)
        self.model.train()
        return total.item() / count

    # -- what is shown ---------------------------------------------------------------
    def _start_clock(self) -> None:
        gg.synchronize(self.device)
        self._clock, self._clocked = time.perf_counter(), self.step

    def _read_losses(self) -> None:
        for loss, norm in self._pending:
            self.losses.append(loss.item())
            self.norms.append(norm.item())
        self._pending.clear()

    def _report(self, rate: float) -> None:
        """Read the losses since the last report and show where training stands."""
        self._read_losses()
        steps, now = self.step - self._clocked, time.perf_counter()
        seconds = now - self._clock
        self.seconds += seconds
        self._clock, self._clocked = now, self.step
        each = seconds / max(1, steps)
        shown = {
            "loss": float(np.mean(self.losses[-max(1, steps) :])),
            "norm": self.norms[-1],
            "lr": rate,
            "ms/step": 1e3 * each,
            "tokens/s": self.tokens_per_step / each,
        }
        if self.show.get("mfu"):
            shown["MFU"] = self._rate_of_products(shown["tokens/s"])
        self._shown = shown
        self._bar.update(self.step - self._bar.n)
        self._bar.set_postfix_str(_in_words(shown))
        if self.show.get("tensorboard"):
            self._note(shown)

    def _rate_of_products(self, tokens_per_second: float) -> float:
        """The part of what the device's matrix products reach at best that training uses."""
        best = gg.profiler.peak(self.device, self.train_step.dtype).gemm
        part = self.model.flops_per_token() * tokens_per_second / best
        self._clock = time.perf_counter()  # the first time it was measured, which is no training
        return part

    def _note(self, values: dict[str, float]) -> None:
        if self._board is None:
            try:
                from tensorboardX import SummaryWriter
            except ImportError as error:
                raise ImportError('--tensorboard needs tensorboardX: pip install "gpugrad[examples]"') from error
            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step)
        for name, value in values.items():
            self._board.add_scalar(name, value, self.step)

    def _evaluate_and_tell(self, everything: bool) -> None:
        loss = self.evaluate(None if everything else self.settings["eval_batches"])
        self.validation.append((self.step, loss))
        if self.show.get("tensorboard"):
            self._note({"validation loss": loss})
        parts = [f"step {self.step}/{self.settings['steps']}: validation loss {loss:.4f}", _in_words(self._shown)]
        self._tell(", ".join(filter(None, parts)))

    def _sample(self, alphabet: Alphabet) -> str:
        """Text that the model writes now. The random numbers of training go on as if nothing had been drawn."""
        start = self.tokens.validation[: 1 + self.model.config.context // 8].astype(np.int64).tolist()
        with gg.random.fork_rng():
            drawn = generate(self.model, start, self.settings["sample_length"], 0.8, 200, known=alphabet.size)
            text = alphabet.decode(start + list(drawn))
        return "\n".join("  | " + line for line in text.splitlines())

    def _tell(self, text: str) -> None:
        self._bar.write(text)

    # -- the end -----------------------------------------------------------------------
    def finish(self) -> dict[str, Any]:
        """Write weights, picture and results; returns the results."""
        if self.validation and self.validation[-1][0] == self.step:
            final = self.validation[-1][1]
        else:
            final = self.evaluate()
        save_model(self.folder / "model.safetensors", self.model, self.alphabet)
        plot_loss(self.losses, self.validation, f"{self.folder.name}, {self.device}", self.folder / "loss.png")
        results = {
            "validation_loss": final,
            "training_seconds": self.seconds,
            "tokens_per_second": len(self.losses) * self.tokens_per_step / self.seconds if self.seconds else None,
            "losses": self.losses,
            "validation": self.validation,
        }
        write_json(self.folder / "results.json", results)
        return results


def _in_words(shown: dict[str, float]) -> str:
    formats = {"loss": ".4f", "norm": ".2f", "lr": ".2e", "ms/step": ".1f", "tokens/s": ",.0f", "MFU": ".1%"}
    return ", ".join(f"{name} {value:{formats[name]}}" for name, value in shown.items())
