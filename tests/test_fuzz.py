"""Random programs, the same ones in each run: gpugrad on each device against the CPU, and the CPU against PyTorch.

``make fuzz MINUTES=30`` goes on with others; what it found is in ``tests/fuzz/cases``."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.generate import programs
from tests.fuzz.judge import verdict
from tests.fuzz.shorten import shorten
from tests.pretend import PretendBackend

CASES = sorted((Path(__file__).parent / "fuzz" / "cases").glob("*.txt"))
FIXED = settings(
    derandomize=True, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


def program(path):
    """The lines of a case; the first is a comment that says what was wrong."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("#")
    return [line for line in lines if line and not line.startswith("#")]


def check(lines, devices, torch=None):
    found = verdict(lines, devices, torch)
    if found is not None:
        small = shorten(lines, lambda some: verdict(some, devices, torch))
        pytest.fail("\n".join([str(verdict(small, devices, torch)), *small]), pytrace=False)


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_what_was_found(path, device):
    check(program(path), [device])


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_what_was_found_against_pytorch(path, torch):
    check(program(path), [], torch)


def test_devices(device):
    if device == "cpu":
        pytest.skip("it is what the others are compared with")
    few = device not in ("cpu", "pretend")  # each kind of operation costs a compilation there

    @settings(FIXED, max_examples=150 if few else 1500)
    @given(programs(narrow=few, most=10 if few else 14))
    def run(lines):
        check(lines, [device])

    run()


@settings(FIXED, max_examples=2000)
@given(programs())
def against_pytorch(torch, lines):
    check(lines, [], torch)


def test_pytorch(torch):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        against_pytorch(torch)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("reduce", lambda right, self, kind, *rest: right(self, "max" if kind == "sum" else kind, *rest)),
        ("as_strided", lambda right, self, array, *rest: right(self, self.copy(array), *rest)),
        ("matmul", lambda right, self, a, b: right(self, a, b)[..., :1, :]),
    ],
    ids=["values", "aliasing", "errors"],
)
def test_a_difference_is_seen(method, wrong, monkeypatch):
    """Were a device wrong in values, in what shares memory or in what it refuses, programs would show it."""
    lines = [
        "v0 = make(1, (2, 3), grad=True)", "v1 = v0.tanh()", "v2 = v1[1]", "with T.no_grad(): v2.zero_()",
        "v3 = v0 @ v0.mT", "v4 = v3[1, 1]", "v5 = v0.sum(0)", "weigh(v1).backward()",
    ]  # fmt: skip
    assert verdict(lines, ["pretend"]) is None
    right = getattr(PretendBackend, method)
    monkeypatch.setattr(PretendBackend, method, lambda self, *rest: wrong(right, self, *rest))
    assert verdict(lines, ["pretend"]) is not None
