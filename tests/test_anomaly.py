"""Anomaly detection: the error names the operation and the line of the user's program that called it."""

from __future__ import annotations

import pytest

import gpugrad as gg
from gpugrad.autograd import anomaly, detect_anomaly, is_anomaly_enabled, set_detect_anomaly


def faulty(device):
    x = gg.tensor([-1.0, 4.0], device=device, requires_grad=True)
    y = x.sqrt()  # the line that is to be named
    return (y * 2).sum()


def test_names_the_line(device):
    with detect_anomaly():
        loss = faulty(device)
        with pytest.raises(RuntimeError, match="the line that is to be named") as raised:
            loss.backward()
    assert "sqrt" in str(raised.value) and "test_anomaly.py" in str(raised.value)
    assert "gpugrad/ops" not in str(raised.value)


def test_off_again():
    faulty("cpu").backward()
    with detect_anomaly():
        assert is_anomaly_enabled()
    assert not is_anomaly_enabled() and not anomaly.state.checking
    with detect_anomaly(check_nan=False):
        faulty("cpu").backward()


def test_set_and_decorator():
    set_detect_anomaly(True)
    try:
        with pytest.raises(RuntimeError, match="holds NaN"):
            faulty("cpu").backward()
    finally:
        set_detect_anomaly(False)
    with set_detect_anomaly(True):
        assert is_anomaly_enabled()
    assert not is_anomaly_enabled()

    @detect_anomaly()
    def run():
        faulty("cpu").backward()

    with pytest.raises(RuntimeError, match="holds NaN"):
        run()


def test_made_before():
    loss = faulty("cpu")
    with detect_anomaly(), pytest.raises(RuntimeError, match="not known"):
        loss.backward()


def test_lines_go_with_their_nodes():
    before = len(anomaly._lines)
    with detect_anomaly():
        loss = faulty("cpu")
        assert len(anomaly._lines) >= before + 3
        del loss
    assert len(anomaly._lines) == before


class Faulty(gg.nn.Module):
    def forward(self, x):
        return (x - 9).sqrt().sum()  # in a module


def in_place(x):
    y = x * 1
    y.sqrt_()  # in place
    return y.sum()


def through_a_checkpoint(x):
    from gpugrad.utils.checkpoint import checkpoint

    return checkpoint(lambda t: (t - 9).sqrt().sum(), x, use_reentrant=False)  # in a checkpoint


@pytest.mark.parametrize(
    ("function", "line"),
    [(Faulty(), "# in a module"), (in_place, "# in place"), (through_a_checkpoint, "# in a checkpoint")],
    ids=["module", "in place", "checkpoint"],
)
def test_odd_places(function, line, device):
    with detect_anomaly():
        loss = function(gg.tensor([-1.0, 4.0], device=device, requires_grad=True))
        with pytest.raises(RuntimeError, match="holds NaN") as raised:
            loss.backward()
    assert line in str(raised.value) and "test_anomaly.py" in str(raised.value)


# -- compiled functions -------------------------------------------------------------------


def bad(device):
    return gg.tensor([-1.0, 4.0], device=device, requires_grad=True)


@gg.compile
def compiled(x):
    y = x.sqrt()  # in a compiled function
    return (y * 2).sum()


@gg.compile
def whole_step(x):
    loss = (x.sqrt() * 2).sum()  # in a compiled step
    loss.backward()
    return loss


@pytest.mark.parametrize("traced_before", [False, True])
def test_around_a_compiled_function(traced_before, device):
    compiled.reset()
    if traced_before:
        compiled(bad(device)).backward()
    programs = len(compiled.traces)
    with detect_anomaly():
        loss = compiled(bad(device))
        with pytest.raises(RuntimeError, match="# in a compiled function"):
            loss.backward()
    assert len(compiled.traces) == programs
    compiled(bad(device)).backward()  # compiled again, without a word
    assert len(compiled.traces) == 1


def test_around_a_compiled_step(device):
    whole_step.reset()
    with detect_anomaly(), pytest.raises(RuntimeError, match="# in a compiled step"):
        whole_step(bad(device))
    x = bad(device)
    whole_step(x)
    assert len(whole_step.traces) == 1 and x.grad.isnan().any()


def test_around_a_compiled_module(device):
    model = gg.compile(Faulty(), fullgraph=True)
    with detect_anomaly():
        loss = model(bad(device))
        with pytest.raises(RuntimeError, match="# in a module"):
            loss.backward()


def test_inside_a_compiled_function(device):
    def step(x):
        with detect_anomaly():
            loss = x.sqrt().sum()  # under it
            loss.backward()
        return loss

    some = gg.compile(step)
    with pytest.warns(gg.compiler.GraphBreak, match="turns on anomaly detection"):
        some(bad(device).detach().abs().requires_grad_())
    assert not some.traces
    with pytest.raises(RuntimeError, match="# under it"):  # eagerly from then on: no line is lost
        some(bad(device))
    assert not anomaly.state.remembering


def test_backward_alone_of_a_compiled_function(device):
    """The program is named; which of its lines it was, only a forward pass with anomaly detection on can tell."""
    loss = gg.compile(lambda x: x.sqrt().sum())(bad(device))
    with detect_anomaly(), pytest.raises(RuntimeError, match="compute the forward pass with it on"):
        loss.backward()


class Two(gg.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1, x * 2

    @staticmethod
    def backward(ctx, first, second):
        return first + second * float("nan")


def test_names_the_line_of_a_function_of_the_users_own(device):
    x = gg.ones(2, device=device, requires_grad=True)
    with detect_anomaly():
        a, b = Two.apply(x)  # the line of Two
        with pytest.raises(RuntimeError, match="(?s)Two: .*the line of Two"):
            (a + b).sum().backward()
    assert b.grad_fn.title == "Two"
