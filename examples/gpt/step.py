"""One step of training: gradients of batches, clipped, and the step of AdamW; in any precision, compiled or not."""

from __future__ import annotations

import contextlib
from typing import Any

import gpugrad as gg
from gpt.model import GPT
from gpugrad import nn

DTYPES = {"float32": gg.float32, "bfloat16": gg.bfloat16, "float16": gg.float16}


def make_optimizer(model: GPT, settings: dict[str, Any]) -> gg.optim.Optimizer:
    """AdamW over what is to be learned; weights decay in matrices, not in biases and norms."""
    learned = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.dim() >= 2], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in learned if p.dim() < 2], "weight_decay": 0.0},
    ]
    return gg.optim.AdamW([g for g in groups if g["params"]], lr=settings["lr"], betas=(0.9, settings["beta2"]))


class Step:
    """``step(x, y)`` for tokens ``[accumulate, batch, context]``: loss and norm of the gradient, 0-d, on the device.

    float16 and bfloat16 compute under autocast, with the weights in float32. In float16 the loss is scaled, and a step
    whose gradients overflow is left out, which has to look at them: then only forward and backward are compiled."""

    def __init__(self, model: GPT, optimizer: gg.optim.Optimizer, device: gg.Device, settings: dict[str, Any]) -> None:
        self.model, self.optimizer, self.device = model, optimizer, device
        self.dtype = DTYPES[settings["dtype"]]
        self.scaler = gg.amp.GradScaler(device.type) if self.dtype is gg.float16 else None
        self.compiled: Any = None
        self._one = gg.ones((), device=device)
        learned = [p for p in model.parameters() if p.requires_grad]
        clip, device_type, half = settings["clip"], device.type, self.dtype is not gg.float32
        dtype = self.dtype

        def gradients(x: gg.Tensor, y: gg.Tensor, factor: gg.Tensor | None = None) -> gg.Tensor:
            optimizer.zero_grad()
            count, total = x.shape[0], None
            for i in range(count):
                with gg.autocast(device_type, dtype) if half else contextlib.nullcontext():
                    loss = model.loss(x[i], y[i]) / count
                (loss if factor is None else loss * factor).backward()
                total = loss.detach() if total is None else total + loss.detach()
            return total

        def whole(x: gg.Tensor, y: gg.Tensor) -> tuple[gg.Tensor, gg.Tensor]:
            loss = gradients(x, y)
            norm = nn.utils.clip_grad_norm_(learned, clip)
            optimizer.step()
            return loss, norm

        def scaled(x: gg.Tensor, y: gg.Tensor) -> tuple[gg.Tensor, gg.Tensor]:
            loss = self._gradients(x, y, self.scaler.scale(self._one))
            self.scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(learned, clip)
            self.scaler.step(optimizer)
            self.scaler.update()
            return loss, norm

        self._gradients = gradients
        if settings["compile"]:
            self.compiled = gg.compile(gradients if self.scaler else whole)
            self._gradients = self.compiled
        self._run = scaled if self.scaler else (self.compiled or whole)

    def __call__(self, x: gg.Tensor, y: gg.Tensor) -> tuple[gg.Tensor, gg.Tensor]:
        return self._run(x, y)

    def warm_up(self, x: gg.Tensor, y: gg.Tensor) -> None:
        """Where the step is compiled, run it until it is, and undo what the runs did.

        The runs that are traced compute eagerly, and so round differently from those that are replayed. Without this
        a run that was interrupted would have such steps where the uninterrupted one has none."""
        if self.compiled is None:
            return
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        states = {p: {name: _copy(value) for name, value in state.items()} for p, state in self.optimizer.state.items()}
        scaler = self.scaler.state_dict() if self.scaler else None
        random = gg.get_rng_state()
        for _ in range(4):
            before = len(self.compiled.traces)
            self(x, y)
            if before and before == len(self.compiled.traces):
                break
        with gg.no_grad():
            for name, value in self.model.state_dict().items():
                value.copy_(weights[name])
            # In place: the program knows these tensors.
            for p, state in self.optimizer.state.items():
                for name, value in state.items():
                    old = states.get(p, {}).get(name, 0)
                    if isinstance(value, gg.Tensor):
                        value.copy_(old) if isinstance(old, gg.Tensor) else value.fill_(old)
                    else:
                        state[name] = old
        if scaler is not None:
            self.scaler.load_state_dict(scaler)
        gg.set_rng_state(random)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, gg.Tensor) else value
