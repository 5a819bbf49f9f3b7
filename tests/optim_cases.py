"""What the tests of optim compare with PyTorch: optimizers on one small problem, and schedules.

``optim_reference.json`` holds what PyTorch makes of each, in float64. Write it anew with
``python -m tests.optim_cases``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).parent / "optim_reference.json"
STEPS = 6

#: name -> optimizer of two parameters
OPTIMIZERS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "sgd": lambda o, a, b: o.SGD([a, b], lr=0.05),
    "sgd_momentum": lambda o, a, b: o.SGD([a, b], lr=0.02, momentum=0.9, dampening=0.3, weight_decay=0.1),
    "sgd_nesterov": lambda o, a, b: o.SGD([a, b], lr=0.02, momentum=0.9, nesterov=True),
    "sgd_maximize": lambda o, a, b: o.SGD([a, b], lr=0.01, maximize=True, weight_decay=0.1),
    "sgd_groups": lambda o, a, b: o.SGD([{"params": [a], "lr": 0.1}, {"params": b, "momentum": 0.5}], lr=0.01),
    "adam": lambda o, a, b: o.Adam([a, b], lr=0.1),
    "adam_all": lambda o, a, b: o.Adam([a, b], lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1, amsgrad=True),
    "adam_maximize": lambda o, a, b: o.Adam([a, b], lr=0.1, maximize=True),
    "adamw": lambda o, a, b: o.AdamW([a, b], lr=0.1, weight_decay=0.2),
    "adamw_amsgrad": lambda o, a, b: o.AdamW([a, b], lr=0.1, amsgrad=True, betas=(0.5, 0.6)),
    "rmsprop": lambda o, a, b: o.RMSprop([a, b], lr=0.02),
    "rmsprop_all": lambda o, a, b: o.RMSprop([a, b], lr=0.02, alpha=0.8, momentum=0.5, centered=True, weight_decay=0.1),
    "rmsprop_maximize": lambda o, a, b: o.RMSprop([a, b], lr=0.02, maximize=True),
    "adagrad": lambda o, a, b: o.Adagrad([a, b], lr=0.1),
    "adagrad_all": lambda o, a, b: o.Adagrad(
        [a, b], lr=0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.5
    ),
}

#: name -> schedule of an optimizer with rates 0.5 and 0.1
SCHEDULES: dict[str, Callable[[Any, Any], Any]] = {
    "lambda": lambda s, o: s.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (1 + e)]),
    "multiplicative": lambda s, o: s.MultiplicativeLR(o, lambda e: 0.95),
    "step": lambda s, o: s.StepLR(o, 3, gamma=0.5),
    "multistep": lambda s, o: s.MultiStepLR(o, [2, 5, 5, 9], gamma=0.5),
    "constant": lambda s, o: s.ConstantLR(o, factor=0.25, total_iters=4),
    "linear": lambda s, o: s.LinearLR(o, start_factor=0.25, end_factor=0.75, total_iters=6),
    "exponential": lambda s, o: s.ExponentialLR(o, 0.9),
    "polynomial": lambda s, o: s.PolynomialLR(o, total_iters=8, power=2.0),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, T_max=6, eta_min=0.01),
    "restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2, eta_min=0.01),
    "restarts_1": lambda s, o: s.CosineAnnealingWarmRestarts(o, T_0=4),
    "one_cycle": lambda s, o: s.OneCycleLR(o, max_lr=[1.0, 0.3], total_steps=22),
    "one_cycle_three": lambda s, o: s.OneCycleLR(o, max_lr=1.0, epochs=2, steps_per_epoch=11, three_phase=True,
                                                 anneal_strategy="linear", div_factor=10.0),
    "one_cycle_fixed": lambda s, o: s.OneCycleLR(o, max_lr=1.0, total_steps=22, cycle_momentum=False, pct_start=0.5),
    "cyclic": lambda s, o: s.CyclicLR(o, base_lr=0.1, max_lr=[1.0, 0.5], step_size_up=4, step_size_down=3),
    "cyclic_2": lambda s, o: s.CyclicLR(o, base_lr=0.1, max_lr=1.0, step_size_up=3, mode="triangular2"),
    "cyclic_exp": lambda s, o: s.CyclicLR(o, base_lr=0.1, max_lr=1.0, step_size_up=3, mode="exp_range", gamma=0.9,
                                          cycle_momentum=False),
    "sequential": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, total_iters=4), s.ExponentialLR(o, 0.9), s.CosineAnnealingLR(o, 5)], [4, 9]),
    "chained": lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, total_iters=3), s.ExponentialLR(o, 0.9)]),
}  # fmt: skip

PLATEAU = [1.0, 0.9, 0.91, 0.92, 0.93, 0.8, 0.8, 0.8, 0.8, 0.8, 0.79999, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
PLATEAUS: dict[str, dict[str, Any]] = {
    "plateau": {"patience": 2, "factor": 0.5},
    "plateau_max": {"mode": "max", "patience": 1, "threshold_mode": "abs", "threshold": 0.05, "cooldown": 2},
    "plateau_min_lr": {"patience": 0, "factor": 0.1, "min_lr": [0.05, 0.01]},
}


def parameters(t: Any, device: str = "cpu", dtype: str = "float32") -> tuple[Any, Any]:
    """The two parameters every optimizer starts from."""
    d = getattr(t, dtype)
    a = t.tensor([1.5, -2.0, 0.25], device=device, dtype=d, requires_grad=True)
    b = t.tensor([[0.5, -1.0], [2.0, 0.0]], device=device, dtype=d, requires_grad=True)
    return a, b


def loss(a: Any, b: Any) -> Any:
    """Something with curvature that differs by element."""
    return ((a - 1.0) ** 2).sum() * 0.5 + (b**4).sum() * 0.25 + (a[0] * b[0]).sum()


def optimize(t: Any, name: str, device: str = "cpu", dtype: str = "float32", steps: int = STEPS) -> list[float]:
    """The parameters after some steps, flattened."""
    a, b = parameters(t, device, dtype)
    optimizer = OPTIMIZERS[name](t.optim, a, b)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(a, b).backward()
        optimizer.step()
    return [*a.detach().cpu().tolist(), *sum(b.detach().cpu().tolist(), [])]


def groups(t: Any) -> Any:
    """An optimizer with two groups whose parameters have gradients of 0."""
    a, b = parameters(t)
    a.grad, b.grad = t.zeros_like(a), t.zeros_like(b)
    return t.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.1}], lr=0.5, momentum=0.7)


def schedule(t: Any, name: str, steps: int = 20) -> list[list[float]]:
    """Rates of both groups and the momentum, before each step."""
    optimizer = groups(t)
    if name in PLATEAUS:
        scheduler = t.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **PLATEAUS[name])
    else:
        scheduler = SCHEDULES[name](t.optim.lr_scheduler, optimizer)
    rows = []
    for i in range(steps):
        rows.append([float(g[k]) for g in optimizer.param_groups for k in ("lr", "momentum")])
        optimizer.step()
        if name in PLATEAUS:
            scheduler.step(PLATEAU[i])
        else:
            scheduler.step()
    return rows


def record(torch: Any) -> dict[str, Any]:
    """What PyTorch makes of every case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {"optimizers": {name: optimize(torch, name, dtype="float64") for name in OPTIMIZERS},
                "schedules": {name: schedule(torch, name) for name in (*SCHEDULES, *PLATEAUS)}}  # fmt: skip


if __name__ == "__main__":
    import torch as _torch

    REFERENCE.write_text(json.dumps(record(_torch), indent=None, separators=(",", ":")).replace('],"', '],\n"'))
