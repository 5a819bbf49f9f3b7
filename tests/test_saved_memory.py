"""What activation checkpointing saves and what it must not change, and gradients added up over small batches."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn
from gpugrad.utils.checkpoint import checkpoint

MIB = 1 << 20


class Stack(nn.Module):
    def __init__(self, width, depth, p=0.0, device="cpu"):
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(p), nn.Linear(4 * width, width))
            for _ in range(depth)
        )
        self.to(device)

    def forward(self, x, saving):
        for part in self.parts:
            x = x + (checkpoint(part, x, use_reentrant=False) if saving else part(x))
        return x


def gradients(model, x, saving, context=contextlib.nullcontext):
    gg.manual_seed(7)
    model.zero_grad()
    x = x.detach().requires_grad_()
    with context():
        loss = model(x, saving).square().mean()
    loss.backward()
    return [loss.item(), *(t.grad.cpu().numpy() for t in (x, *model.parameters()))]


def test_checkpointing_saves_memory(device):
    """Of each of eight parts 1 + 4 + 4 MiB and more are kept without, 1 MiB with; and once those of one part."""
    gg.manual_seed(0)
    model, x = Stack(128, 8, device=device), gg.randn(2048, 128, device=device)
    gradients(model, x, False)
    peaks = {}
    for saving in (False, True):
        model.zero_grad()
        gg.synchronize(device)
        before = gg.memory_stats(device)["allocated"]
        gg.reset_peak_memory_stats(device)
        gradients(model, x, saving)
        peaks[saving] = (gg.memory_stats(device)["peak"] - before) / MIB
    assert peaks[False] > 70 and peaks[True] < 0.5 * peaks[False], peaks


@pytest.mark.parametrize("dtype", [None, gg.bfloat16, gg.float16], ids=str)
def test_checkpointing_changes_no_bit(device, dtype):
    gg.manual_seed(0)
    model, x = Stack(12, 3, p=0.3, device=device), gg.randn(10, 12, device=device)
    context = contextlib.nullcontext if dtype is None else lambda: gg.autocast(device, dtype=dtype)
    kept, saved = (gradients(model, x, saving, context) for saving in (False, True))
    for a, b in zip(kept, saved, strict=True):
        np.testing.assert_array_equal(a, b)


def test_small_batches_add_up_to_a_large_one(device):
    gg.manual_seed(0)
    model, x = Stack(12, 2, device=device), gg.randn(24, 12, device=device)
    found = []
    for parts in (1, 4):
        model.zero_grad()
        for part in x.chunk(parts):
            (model(part, parts > 1).square().mean() / parts).backward()
        found.append([p.grad.cpu().numpy() for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_scaler_in_a_compiled_program_is_the_scaler(device):
    """The scale, the steps that are left out and the weights, with forward and backward compiled."""
    found = []
    for way in ("eager", "compiled"):
        gg.manual_seed(0)
        model = nn.Linear(6, 3).to(device)
        optimizer = gg.optim.SGD(model.parameters(), lr=0.1)
        scaler = gg.amp.GradScaler(device, init_scale=2.0**17, growth_interval=2)

        def losses(x, model=model, device=device):
            with gg.autocast(device, dtype=gg.float16):
                return model(x).square().mean()

        run = gg.compile(losses) if way == "compiled" else losses
        x, scales = gg.randn(5, 6, device=device), []
        for _ in range(6):
            optimizer.zero_grad()
            scaler.scale(run(x)).backward()
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
        found.append((scales, model.weight.detach().cpu().numpy()))
    assert found[0][0] == found[1][0] and len(set(found[0][0])) > 1
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=2e-3, atol=1e-4)


def test_scaler_reads_one_flag_a_step(device, monkeypatch):
    model = Stack(8, 3, device=device)
    optimizer = gg.optim.AdamW(model.parameters())
    scaler = gg.amp.GradScaler(device)

    def step():
        optimizer.zero_grad()
        scaler.scale(model(gg.ones(4, 8, device=device), False).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()

    step()
    kind, reads = type(next(model.parameters())._backend), []
    plain = kind.to_host
    monkeypatch.setattr(kind, "to_host", lambda self, array: reads.append(array.shape) or plain(self, array))
    step()
    assert reads == [()]
