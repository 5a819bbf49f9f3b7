"""Optimizers and schedules off the beaten path: rates at a given epoch, hooks, what is saved, line searches; against
PyTorch where it has them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.optim.lbfgs import Point, cubic_minimum, strong_wolfe

SCHEDULES = [
    ("StepLR", {"step_size": 3}), ("MultiStepLR", {"milestones": [2, 2, 5]}), ("ConstantLR", {"total_iters": 4}),
    ("LinearLR", {"total_iters": 4}), ("PolynomialLR", {"total_iters": 5, "power": 2.0}),
    ("ExponentialLR", {"gamma": 0.5}),
    ("CosineAnnealingLR", {"T_max": 6, "eta_min": 0.01}), ("CosineAnnealingWarmRestarts", {"T_0": 3}),
    ("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 2}), ("LambdaLR", {"lr_lambda": lambda e: 0.9**e}),
]  # fmt: skip


def _made(library, name, options):
    p = library.nn.Parameter(library.ones(2))
    optimizer = library.optim.SGD([p], lr=0.8)
    return optimizer, getattr(library.optim.lr_scheduler, name)(optimizer, **options)


@pytest.mark.parametrize(("name", "options"), SCHEDULES, ids=lambda v: v if isinstance(v, str) else "")
def test_rates_of_a_given_epoch_as_pytorch(name, options, torch):
    """``step(epoch)``, forward and back."""
    rates = []
    for library in (torch, gg):
        optimizer, schedule = _made(library, name, options)
        optimizer.step()
        seen = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for epoch in (1, 4, 2, 7, 3):
                schedule.step(epoch)
                seen.append(optimizer.param_groups[0]["lr"])
        rates.append(seen)
    np.testing.assert_allclose(rates[1], rates[0], rtol=1e-6)


def test_a_schedule_with_a_scale_of_its_own(torch):
    rates = []
    for library in (torch, gg):
        p = library.nn.Parameter(library.ones(2))
        optimizer = library.optim.SGD([p], lr=0.1)
        schedule = library.optim.lr_scheduler.CyclicLR(
            optimizer, 0.1, 1.0, step_size_up=2, cycle_momentum=False, scale_fn=lambda x: 1 / (1 + x)
        )
        seen = []
        for _ in range(9):
            optimizer.step()
            schedule.step()
            seen.append(optimizer.param_groups[0]["lr"])
        rates.append(seen)
    np.testing.assert_allclose(rates[1], rates[0], rtol=1e-6)


def test_schedules_inside_schedules(torch):
    """A sequence whose first part is itself chained: what building them did to the rate is undone."""
    rates = []
    for library in (torch, gg):
        schedules = library.optim.lr_scheduler
        optimizer = library.optim.SGD([library.nn.Parameter(library.ones(2))], lr=1.0)
        parts = [schedules.ConstantLR(optimizer, 0.5, 2), schedules.ExponentialLR(optimizer, 0.9)]
        chained = schedules.ChainedScheduler(parts, optimizer)
        with warnings.catch_warnings():  # PyTorch's says that it steps before the optimizer does
            warnings.simplefilter("ignore")
            outer = schedules.SequentialLR(optimizer, [chained, schedules.StepLR(optimizer, 2)], [3])
        seen = []
        for _ in range(7):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            outer.step()
        rates.append(seen)
    np.testing.assert_allclose(rates[1], rates[0], rtol=1e-6)


# -- hooks ----------------------------------------------------------------------------------------------


def test_hooks_around_a_step():
    p = gg.nn.Parameter(gg.ones(2))
    optimizer = gg.optim.SGD([p], lr=0.1)
    told = []
    closure = lambda: told.append("closure") or p.sum()  # noqa: E731
    handle = optimizer.register_step_pre_hook(lambda o, args, kwargs: ((closure,), {}))
    optimizer.register_step_post_hook(lambda o, args, kwargs: told.append("after"))
    p.grad = gg.ones(2)
    optimizer.step()
    assert told == ["closure", "after"]  # the closure that the hook put in was called
    handle.remove()
    optimizer.register_step_pre_hook(lambda o, args, kwargs: "nonsense")
    with pytest.raises(RuntimeError, match="pair \\(args, kwargs\\)"):
        optimizer.step()


def test_hooks_run_once_where_a_step_calls_that_of_its_base():
    class Twice(gg.optim.SGD):
        def step(self, closure=None):
            super().step()
            return super().step(closure)

    p = gg.nn.Parameter(gg.zeros(1))
    optimizer = Twice([p], lr=1.0)
    told = []
    optimizer.register_step_post_hook(lambda *a: told.append(1))
    p.grad = gg.ones(1)
    optimizer.step()
    assert told == [1] and p.tolist() == [-2.0]


def test_hooks_around_saving_and_loading():
    p = gg.nn.Parameter(gg.ones(2))
    optimizer = gg.optim.SGD([p], lr=0.1, momentum=0.9)
    told = []
    optimizer.register_state_dict_pre_hook(lambda o: told.append("before saving"))
    optimizer.register_state_dict_post_hook(lambda o, s: {**s, "extra": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, s: {k: v for k, v in s.items() if k != "extra"})
    optimizer.register_load_state_dict_post_hook(lambda o: told.append("loaded"))
    saved = optimizer.state_dict()
    assert saved["extra"] == 1
    optimizer.load_state_dict(saved)
    assert told == ["before saving", "loaded"]


def test_state_of_any_shape_is_loaded():
    """Optimizers of users keep dicts and lists of tensors; they come to the dtype of their parameter."""
    p = gg.nn.Parameter(gg.ones(2, dtype=gg.float64))
    optimizer = gg.optim.SGD([p], lr=0.1, momentum=0.9)
    state = {"nested": {"a": gg.ones(2), "list": [gg.zeros(2), 3]}, "pair": (gg.ones(2), "text")}
    optimizer.load_state_dict({"state": {0: state}, "param_groups": optimizer.state_dict()["param_groups"]})
    held = optimizer.state[p]
    assert held["nested"]["a"].dtype is gg.float64 and held["nested"]["list"][0].dtype is gg.float64
    assert held["nested"]["list"][1] == 3 and held["pair"][1] == "text" and type(held["pair"]) is tuple


def test_groups_have_names_or_none_has():
    p, q = gg.nn.Parameter(gg.ones(2)), gg.nn.Parameter(gg.ones(2))
    optimizer = gg.optim.SGD([("first", p)], lr=0.1)
    with pytest.raises(ValueError, match="names cannot be mixed"):
        optimizer.add_param_group({"params": [q]})
    model = gg.nn.Linear(2, 1)
    for _ in range(2):
        other = gg.optim.SGD(model.named_parameters(), lr=0.1)
    assert other.param_groups[0]["param_names"] == ["weight", "bias"]


def test_a_momentum_loaded_as_none_begins_anew(torch):
    """As PyTorch saves it before the first step."""
    results = []
    for library in (torch, gg):
        p = library.nn.Parameter(library.ones(2))
        optimizer = library.optim.SGD([p], lr=0.1, momentum=0.9)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": {0: {"momentum_buffer": None}}, "param_groups": groups})
        for _ in range(2):
            p.grad = library.ones(2)
            optimizer.step()
        results.append(p.detach().numpy())
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)


# -- line searches ----------------------------------------------------------------------------------------


def _point(t, f, slope):
    return Point(t, f(t), gg.tensor([slope(t)]), slope(t))


def test_the_lowest_point_of_a_cubic():
    f, slope = (lambda t: t**3 - 3 * t), (lambda t: 3 * t * t - 3)
    for a, b in ((0.0, 3.0), (3.0, 0.0), (0.5, 1.2)):
        assert cubic_minimum(_point(a, f, slope), _point(b, f, slope)) == pytest.approx(1.0)
    same = _point(2.0, f, slope)
    assert cubic_minimum(same, same, (1.0, 4.0)) == 2.5  # nothing to go by: the middle
    assert cubic_minimum(_point(0.0, f, slope), _point(0.5, f, slope), (0.6, 0.8)) == pytest.approx(0.8)
    line = (lambda t: 2 * t), (lambda t: 2.0)
    assert cubic_minimum(_point(0.0, *line), _point(1.0, *line)) == 0.5  # a line has no minimum
    nan = Point(1.0, float("nan"), gg.ones(1), float("nan"))
    assert cubic_minimum(_point(0.0, f, slope), nan) == 0.5


@pytest.mark.parametrize("first", [1e-3, 0.4, 1.0, 30.0])
@pytest.mark.parametrize("shape", ["parabola", "quartic", "wavy", "steep"])
def test_strong_wolfe_conditions_hold(first, shape):
    import math

    f, slope = {
        "parabola": (lambda t: (t - 1.5) ** 2, lambda t: 2 * (t - 1.5)),
        "quartic": (lambda t: (t - 2) ** 4, lambda t: 4 * (t - 2) ** 3),
        "wavy": (lambda t: -t + 0.6 * math.sin(3 * t) + 0.1 * t * t, lambda t: -1 + 1.8 * math.cos(3 * t) + 0.2 * t),
        "steep": (lambda t: math.exp(t) - 40 * t, lambda t: math.exp(t) - 40),
    }[shape]
    start = _point(0.0, f, slope)
    if start.slope >= 0:
        f, slope = (lambda t, f=f: f(t) - 3 * t), (lambda t, s=slope: s(t) - 3)
        start = _point(0.0, f, slope)
    found, tried = strong_wolfe(lambda t: _point(t, f, slope), start, first, 1.0)
    assert tried <= 27
    assert found.loss <= start.loss + 1e-4 * found.t * start.slope
    assert abs(found.slope) <= 0.9 * abs(start.slope)


def test_a_search_without_an_end_takes_the_best_it_saw():
    falling = (lambda t: -t), (lambda t: -1.0)
    found, tried = strong_wolfe(lambda t: _point(t, *falling), _point(0.0, *falling), 1.0, 1.0, c2=0.5, most=3)
    assert tried == 4 and found.loss < -1.0
    stops = strong_wolfe(lambda t: _point(t, lambda t: t, lambda t: 1.0), Point(0.0, 0.0, gg.ones(1), -1.0), 1e-12, 1.0)
    assert stops[0].t == 0.0  # the bracket is narrower than what counts


def test_nothing_to_do_for_lbfgs():
    """At a stationary point it takes the loss and no step."""
    p = gg.nn.Parameter(gg.zeros(2))
    optimizer = gg.optim.LBFGS([p])

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 0.0 and p.tolist() == [0.0, 0.0]


# -- averages ---------------------------------------------------------------------------------------------


def test_statistics_of_a_model_without_batch_norm():
    model = gg.nn.Linear(2, 2)
    before = model.training

    def batches():
        raise AssertionError("nothing needs them")
        yield

    gg.optim.swa_utils.update_bn(batches(), model)
    assert model.training is before


def test_orthogonalize_refuses():
    from gpugrad.optim.muon import orthogonalize

    given = {"coefficients": (3.4445, -4.775, 2.0315), "steps": 5, "eps": 1e-7}
    for g, other, words in [
        (gg.ones(2, 2), {"steps": 100}, "99"),
        (gg.ones(2), {}, "two dimensions"),
        (gg.ones(2, 2), {"coefficients": (1.0, 2.0)}, "three coefficients"),
    ]:
        with pytest.raises(ValueError, match=words):
            orthogonalize(g, **given | other)
