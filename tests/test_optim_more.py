"""Optimizers beyond the first five, and options of all, in trajectories of 30 steps beside PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import optim

STEPS = 30

#: name -> optimizer of three parameters, by the module it comes from
CASES = {
    "nadam": lambda o, p: o.NAdam(p, lr=0.05),
    "nadam_l2": lambda o, p: o.NAdam(p, 0.05, (0.8, 0.9), 1e-6, 0.1, 0.02),
    "nadam_decoupled": lambda o, p: o.NAdam(p, lr=0.05, weight_decay=0.1, decoupled_weight_decay=True),
    "nadam_maximize": lambda o, p: o.NAdam(p, lr=0.01, maximize=True),
    "radam": lambda o, p: o.RAdam(p, lr=0.05),
    "radam_l2": lambda o, p: o.RAdam(p, 0.05, (0.8, 0.9), 1e-6, 0.1),
    "radam_decoupled": lambda o, p: o.RAdam(p, lr=0.05, betas=(0.5, 0.9), weight_decay=0.1,
                                            decoupled_weight_decay=True),
    "radam_maximize": lambda o, p: o.RAdam(p, lr=0.01, betas=(0.9, 0.95), maximize=True),
    "adamax": lambda o, p: o.Adamax(p, lr=0.05),
    "adamax_all": lambda o, p: o.Adamax(p, 0.05, (0.8, 0.9), 1e-6, 0.1),
    "adamax_maximize": lambda o, p: o.Adamax(p, lr=0.01, maximize=True),
    "adadelta": lambda o, p: o.Adadelta(p),
    "adadelta_all": lambda o, p: o.Adadelta(p, 2.0, 0.8, 1e-4, 0.1),
    "adadelta_maximize": lambda o, p: o.Adadelta(p, lr=0.1, maximize=True),
    "rprop": lambda o, p: o.Rprop(p),
    "rprop_all": lambda o, p: o.Rprop(p, 0.3, (0.4, 1.5), (1e-3, 0.5)),
    "rprop_maximize": lambda o, p: o.Rprop(p, lr=0.001, maximize=True),
    "asgd": lambda o, p: o.ASGD(p, lr=0.05),
    "asgd_all": lambda o, p: o.ASGD(p, 0.05, 0.1, 0.5, 5, 0.1),
    "asgd_maximize": lambda o, p: o.ASGD(p, lr=0.01, maximize=True),
    "adafactor": lambda o, p: o.Adafactor(p, lr=0.05),
    "adafactor_all": lambda o, p: o.Adafactor(p, 0.3, -0.5, (1e-6, 0.1), 1.5, 0.1),
    "adafactor_maximize": lambda o, p: o.Adafactor(p, lr=0.01, maximize=True),
    "lbfgs": lambda o, p: o.LBFGS(p, lr=0.1, max_iter=3),
    "lbfgs_short": lambda o, p: o.LBFGS(p, lr=0.3, max_iter=4, max_eval=3, history_size=2),
    "lbfgs_wolfe": lambda o, p: o.LBFGS(p, max_iter=2, line_search_fn="strong_wolfe"),
    "lbfgs_wolfe_far": lambda o, p: o.LBFGS(p, lr=8.0, max_iter=1, history_size=3, line_search_fn="strong_wolfe"),
    # options of the first five that their own test leaves out
    "sgd_positional": lambda o, p: o.SGD(p, 0.02, 0.9, 0.1, 0.05),
    "sgd_nesterov_decay": lambda o, p: o.SGD(p, 0.02, 0.9, 0, 0.05, True, maximize=False),
    "adam_decoupled": lambda o, p: o.Adam(p, lr=0.05, weight_decay=0.1, decoupled_weight_decay=True, amsgrad=True),
    "adamw_maximize": lambda o, p: o.AdamW(p, 0.01, (0.8, 0.9), 1e-6, 0.1, True, maximize=True),
    "rmsprop_positional": lambda o, p: o.RMSprop(p, 0.02, 0.9, 1e-6, 0.1, 0.5, True),
    "rmsprop_momentum": lambda o, p: o.RMSprop(p, lr=0.01, momentum=0.9),
    "adagrad_maximize": lambda o, p: o.Adagrad(p, 0.05, 0.1, 0.1, 0.2, 1e-6, maximize=True),
    "accepted": lambda o, p: o.AdamW(p, lr=0.05, foreach=True),
}  # fmt: skip


def parameters(t, device="cpu", dtype="float64"):
    rng = np.random.default_rng(7)
    shapes = ((3,), (2, 4), (2, 3, 2))
    return [t.tensor(rng.normal(size=s), dtype=getattr(t, dtype), device=device).requires_grad_() for s in shapes]


def loss(parts):
    """Something with curvature that differs by element, ties between parameters and more than one minimum."""
    a, b, c = parts
    return ((a - 1.0) ** 2).sum() * 0.5 + (b**4).sum() * 0.25 + (c.cos() * 2.0).sum() + (a.sum() * b[0].sum()) * 0.1


def train(o, parts, steps):
    """The loss before each step and all parameters after the last."""
    losses = []
    for _ in range(steps):

        def closure():
            o.zero_grad()
            value = loss(parts)
            value.backward()
            return value

        losses.append(o.step(closure).item())
    return losses, np.concatenate([p.detach().cpu().numpy().reshape(-1) for p in parts])


@pytest.mark.parametrize("name", list(CASES))
def test_trajectories(name, torch):
    ours, theirs = parameters(gg), parameters(torch)
    losses, end = train(CASES[name](optim, ours), ours, STEPS)
    expected_losses, expected_end = train(CASES[name](torch.optim, theirs), theirs, STEPS)
    rtol = 1e-5 if name.startswith("asgd") else 1e-7  # there PyTorch keeps eta and mu in float32
    np.testing.assert_allclose(losses, expected_losses, rtol=rtol, atol=1e-9)
    np.testing.assert_allclose(end, expected_end, rtol=10 * rtol, atol=1e-8)
    assert losses[-1] != losses[0]


def quadratic(parts):
    """For matrices and few steps; the sum keeps every gradient away from 0."""
    return sum(((p - 0.5) ** 2).sum() + p.sum() * 0.3 for p in parts)


DEVICE_CASES = ["nadam_l2", "radam_decoupled", "adamax_all", "adadelta_all", "rprop_all", "asgd_all", "adafactor_all",
                "lbfgs_wolfe"]  # fmt: skip


@pytest.mark.parametrize("name", DEVICE_CASES)
def test_devices_agree(name, device):
    """Five steps in float32 on each device as in float64 on the CPU, and the state is where the parameters are."""
    here, exact = parameters(gg, device, "float32"), parameters(gg)
    o = CASES[name](optim, here)
    losses, end = train(o, here, 5)
    expected, expected_end = train(CASES[name](optim, exact), exact, 5)
    np.testing.assert_allclose(losses, expected, rtol=2e-4)
    np.testing.assert_allclose(end, expected_end, rtol=5e-3, atol=2e-4)
    tensors = [v for s in o.state.values() for v in s.values() if isinstance(v, gg.Tensor) and v.dim()]
    assert tensors and all(v.device == gg.device(device) for v in tensors)


@pytest.mark.parametrize("kind", ["NAdam", "RAdam", "Adamax", "Adadelta", "Rprop", "ASGD"])
def test_capturable_and_tensor_rates(kind, device):
    """Counts kept on the device give the same steps, past the first ones of RAdam too."""
    ends = []
    more = {"betas": (0.5, 0.8)} if kind == "RAdam" else {}
    for options in ({"lr": 0.02}, {"lr": 0.02, "capturable": True}, {"lr": gg.tensor(0.02), "capturable": True}):
        p = gg.tensor([[1.0, -0.5], [0.1, 2.0]], device=device).requires_grad_()
        o = getattr(optim, kind)([p], **options, **more)
        for _ in range(8):
            o.zero_grad()
            quadratic([p]).backward()
            o.step()
        ends.append(p.detach().cpu().numpy())
        assert isinstance(o.state[p]["step"], gg.Tensor) == ("capturable" in options)
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ends[2], ends[0], rtol=1e-4, atol=1e-6)


def as_gpugrad(x, torch):
    """A state_dict of PyTorch with gpugrad's tensors."""
    if isinstance(x, torch.Tensor):
        return gg.tensor(x.numpy())
    if isinstance(x, dict):
        return {k: as_gpugrad(v, torch) for k, v in x.items()}
    return [as_gpugrad(v, torch) for v in x] if isinstance(x, list) else x


def as_torch(x, torch):
    """The other way round; counts become tensors, as PyTorch keeps them."""
    if isinstance(x, gg.Tensor):
        return torch.tensor(x.numpy())
    if isinstance(x, dict):
        counts = ("step", "mu_product", "eta", "mu")
        return {k: torch.tensor(float(v)) if k in counts else as_torch(v, torch) for k, v in x.items()}
    return [as_torch(v, torch) for v in x] if isinstance(x, list) else x


STATEFUL = ["nadam_l2", "radam_l2", "adamax_all", "adadelta_all", "rprop_all", "asgd_all", "adafactor_all",
            "lbfgs", "lbfgs_wolfe", "adamw_maximize", "rmsprop_positional", "adagrad_maximize",
            "sgd_positional"]  # fmt: skip


@pytest.mark.parametrize("name", STATEFUL)
def test_state_goes_to_pytorch_and_back(name, torch):
    """Five steps here, five with PyTorch from our state, five here again: as fifteen of PyTorch's."""
    expected, _ = train(CASES[name](torch.optim, p := parameters(torch)), p, 15)
    ours, theirs = parameters(gg), parameters(torch)
    first = CASES[name](optim, ours)
    found, _ = train(first, ours, 5)
    second = CASES[name](torch.optim, theirs)
    second.load_state_dict(as_torch(first.state_dict(), torch))
    with torch.no_grad():
        for a, b in zip(theirs, ours, strict=True):
            a.copy_(torch.tensor(b.detach().numpy()))
    found += train(second, theirs, 5)[0]
    third = CASES[name](optim, ours)
    third.load_state_dict(as_gpugrad(second.state_dict(), torch))
    with gg.no_grad():
        for a, b in zip(ours, theirs, strict=True):
            a.copy_(gg.tensor(b.detach().numpy()))
    found += train(third, ours, 5)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": False, "weight_decay": 0.0},
        {"adjust_lr_fn": "match_rms_adamw", "momentum": 0.8},
        {"ns_steps": 3},
    ],
)
@pytest.mark.parametrize("shape", [(4, 6), (6, 3)])
def test_muon(options, shape, torch):
    """bfloat16 inside, so only near to PyTorch's."""
    start = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    ends = []
    for t in (gg, torch):
        p = t.tensor(start).requires_grad_()
        o = t.optim.Muon([p], lr=0.02, **options)
        for _ in range(10):
            o.zero_grad()
            quadratic([p]).backward()
            o.step()
        ends.append(p.detach().numpy())
    assert np.abs(ends[1] - start).max() > 0.05
    np.testing.assert_allclose(ends[0], ends[1], atol=0.015)


def test_muon_makes_steps_orthogonal(device):
    from gpugrad.optim.muon import orthogonalize

    g = gg.tensor(np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32), device=device)
    x = orthogonalize(g, (3.4445, -4.7750, 2.0315), 5, 1e-7).float()
    values = np.linalg.svd(x.cpu().numpy())[1]
    assert np.all((0.5 < values) & (values < 1.5)), values


#: what PyTorch's optimizers have not
OWN = ("max_grad_norm", "master_weights")


def test_signatures_are_pytorchs(torch):
    import inspect

    for name in (n for n in optim.__all__ if inspect.isclass(getattr(optim, n))):
        for ours, theirs in ((getattr(optim, name), getattr(torch.optim, name)),):
            mine, other = (inspect.signature(c.__init__).parameters.values() for c in (ours, theirs))
            mine = [p for p in mine if not (p.name in OWN and p.kind is p.KEYWORD_ONLY)]
            assert [(p.name, p.default, p.kind) for p in mine] == [(p.name, p.default, p.kind) for p in other], name
    schedules = [n for n in optim.lr_scheduler.__all__ if n != "ReduceLROnPlateau"] + ["ReduceLROnPlateau"]
    for name in schedules:
        mine, other = (
            inspect.signature(getattr(m, name).__init__).parameters.values()
            for m in (optim.lr_scheduler, torch.optim.lr_scheduler)
        )
        assert [(p.name, p.default, p.kind) for p in mine] == [(p.name, p.default, p.kind) for p in other], name
    assert set(torch.optim.lr_scheduler.__all__) <= set(optim.lr_scheduler.__all__)


def test_defaults_and_groups_are_pytorchs(torch):
    kinds = [n for n in optim.__all__ if n not in ("Optimizer", "SparseAdam", "lr_scheduler", "swa_utils")]
    for name in kinds:
        mine, other = (getattr(t.optim, name)([t.ones(2, 2).requires_grad_()]) for t in (gg, torch))
        assert mine.defaults == other.defaults, name
        assert {k: v for k, v in mine.param_groups[0].items() if k != "params"} == {
            k: v for k, v in other.param_groups[0].items() if k != "params"
        }, name


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (lambda t, p: t.optim.NAdam([p], betas=(0.9, 1.0)), ValueError),
        (lambda t, p: t.optim.NAdam([p], momentum_decay=-1), ValueError),
        (lambda t, p: t.optim.RAdam([p], lr=-1), ValueError),
        (lambda t, p: t.optim.RAdam([p], lr=t.ones(2)), ValueError),
        (lambda t, p: t.optim.Adamax([p], eps=-1), ValueError),
        (lambda t, p: t.optim.Adadelta([p], rho=1.5), ValueError),
        (lambda t, p: t.optim.Rprop([p], etas=(1.1, 1.2)), ValueError),
        (lambda t, p: t.optim.ASGD([p], weight_decay=-1), ValueError),
        (lambda t, p: t.optim.Adafactor([p], beta2_decay=1), ValueError),
        (lambda t, p: t.optim.Adafactor([p], d=0.5), ValueError),
        (lambda t, p: t.optim.Adafactor([p], eps=(-1, 1e-3)), ValueError),
        (lambda t, p: t.optim.LBFGS([{"params": [p]}, {"params": [t.ones(1)]}]), ValueError),
        (lambda t, p: t.optim.LBFGS([p], lr=-1), ValueError),
        (lambda t, p: t.optim.Muon([p]), ValueError),
        (lambda t, p: t.optim.Muon([t.ones(2, 2)], adjust_lr_fn="odd"), ValueError),
        (lambda t, p: t.optim.Adam([p], lr=t.tensor(0.1), foreach=True), ValueError),
        (lambda t, p: t.optim.Adam([p], betas=(t.tensor(0.9), 0.99)), ValueError),
        (lambda t, p: t.optim.Adam([p]).add_param_group([p]), TypeError),
        (lambda t, p: t.optim.Adam([p]).load_state_dict({"state": {}, "param_groups": []}), ValueError),
        (lambda t, p: t.optim.LBFGS([p]).step(), TypeError),
        (lambda t, p: t.optim.swa_utils.get_ema_avg_fn(2.0), ValueError),
        (lambda t, p: t.optim.swa_utils.SWALR(t.optim.SGD([p]), 0.1, -1), ValueError),
        (lambda t, p: t.optim.swa_utils.SWALR(t.optim.SGD([p]), 0.1, anneal_strategy="odd"), ValueError),
        (lambda t, p: t.optim.swa_utils.AveragedModel(t.nn.Linear(1, 1), avg_fn=max, multi_avg_fn=max), AssertionError),
    ],
)
def test_mistakes(build, kind, torch):
    for t in (gg, torch):
        with pytest.raises(kind):
            build(t, t.ones(3).requires_grad_())


def test_unknown_line_search_and_sparse_adam(device):
    p = gg.ones(3, device=device).requires_grad_()
    o = optim.LBFGS([p], line_search_fn="armijo")

    def closure():
        o.zero_grad()
        value = quadratic([p])
        value.backward()
        return value

    with pytest.raises(RuntimeError, match="line_search_fn 'armijo' is unknown; use 'strong_wolfe'"):
        o.step(closure)
    with pytest.raises(NotImplementedError, match=r"SparseAdam .* use optim.Adam"):
        optim.SparseAdam([p])


def test_lbfgs_reaches_the_minimum_of_rosenbrocks_function(device):
    p = gg.tensor([-1.2, 1.0], device=device).requires_grad_()
    o = optim.LBFGS([p], max_iter=60, history_size=10, line_search_fn="strong_wolfe")
    calls = []

    def closure():
        o.zero_grad()
        value = 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2
        value.backward()
        calls.append(value.item())
        return value

    o.register_step_post_hook(lambda *a: calls.append("hook"))
    assert o.step(closure).item() == pytest.approx(24.2)
    assert calls[-1] == "hook" and len(calls) < 90
    np.testing.assert_allclose(p.detach().cpu().numpy(), [1, 1], atol=2e-2)


# -- optimizers as users write them ----------------------------------------------------------


def user_optimizers(t):
    """Lion, LAMB and a Lookahead, in the manner found in the wild, from the module they are given."""
    Base = t.optim.Optimizer

    class Lion(Base):
        def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
            if not 0.0 <= lr:
                raise ValueError(f"bad lr {lr}")
            super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

        @t.no_grad()
        def step(self, closure=None):
            loss = None
            if closure is not None:
                with t.enable_grad():
                    loss = closure()
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    p.data.mul_(1 - group["lr"] * group["weight_decay"])
                    grad = p.grad
                    state = self.state[p]
                    if len(state) == 0:
                        state["exp_avg"] = t.zeros_like(p)
                    exp_avg = state["exp_avg"]
                    beta1, beta2 = group["betas"]
                    update = exp_avg.clone().mul_(beta1).add(grad, alpha=1 - beta1).sign_()
                    p.add_(update, alpha=-group["lr"])
                    exp_avg.mul_(beta2).add_(grad, alpha=1 - beta2)
            return loss

    class Lamb(Base):
        def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0):
            defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
            super().__init__(params, defaults)

        def __setstate__(self, state):
            super().__setstate__(state)
            for group in self.param_groups:
                group.setdefault("trust", 10)

        def step(self, closure=None):
            loss = closure() if closure is not None else None
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    grad = p.grad.data
                    if grad.is_sparse:
                        raise RuntimeError("sparse")
                    state = self.state[p]
                    if len(state) == 0:
                        state["step"] = 0
                        state["exp_avg"] = t.zeros_like(p.data)
                        state["exp_avg_sq"] = t.zeros_like(p.data, memory_format=t.preserve_format)
                    exp_avg, exp_avg_sq = state["exp_avg"], state["exp_avg_sq"]
                    beta1, beta2 = group["betas"]
                    state["step"] += 1
                    exp_avg.mul_(beta1).add_(grad, alpha=1 - beta1)
                    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                    weight_norm = p.data.pow(2).sum().sqrt().clamp(0, 10)
                    adam_step = exp_avg / exp_avg_sq.sqrt().add(group["eps"])
                    if group["weight_decay"] != 0:
                        adam_step.add_(p.data, alpha=group["weight_decay"])
                    adam_norm = adam_step.pow(2).sum().sqrt()
                    if weight_norm == 0 or adam_norm == 0:
                        trust_ratio = 1
                    else:
                        trust_ratio = weight_norm / adam_norm
                    p.data.add_(adam_step, alpha=-group["lr"] * float(trust_ratio))
                    p.data.addcdiv_(exp_avg, exp_avg_sq.sqrt().add_(1.0), value=-0.01 * group["lr"])
            return loss

    class Lookahead(Base):
        def __init__(self, base, k=3, alpha=0.5):
            self.optimizer, self.k, self.alpha = base, k, alpha
            self.param_groups = base.param_groups
            self.defaults = base.defaults
            self.state = base.state
            self.slow = [[p.clone().detach() for p in g["params"]] for g in self.param_groups]
            self.count = 0

        def zero_grad(self):
            self.optimizer.zero_grad()

        def step(self, closure=None):
            loss = self.optimizer.step(closure)
            self.count += 1
            if self.count % self.k == 0:
                for group, slow in zip(self.param_groups, self.slow, strict=True):
                    for p, q in zip(group["params"], slow, strict=True):
                        q.data.add_(p.data - q.data, alpha=self.alpha)
                        p.data.copy_(q.data)
            return loss

    return Lion, Lamb, Lookahead


@pytest.mark.parametrize("which", [0, 1, 2])
def test_optimizers_of_users(which, torch):
    runs = []
    for t in (gg, torch):
        p = parameters(t)
        kinds = user_optimizers(t)
        o = kinds[which](p, lr=0.02, weight_decay=0.01) if which < 2 else kinds[2](t.optim.SGD(p, lr=0.02))
        runs.append(train(o, p, 12))
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-7)
    np.testing.assert_allclose(runs[0][1], runs[1][1], rtol=1e-7, atol=1e-10)


def test_states_of_users_optimizers_are_saved_and_loaded(device):
    _, Lamb, _ = user_optimizers(gg)
    p = parameters(gg, device, "float32")
    o = Lamb(p)
    train(o, p, 2)
    o.state["count"] = 3  # not of a parameter
    saved = o.state_dict()
    assert saved["state"][0]["step"] == 2 and saved["state"]["count"] == 3
    calls = []
    again = Lamb(p)
    again.register_step_pre_hook(lambda *a: calls.append(1))
    again.load_state_dict(saved)
    assert again.state["count"] == 3 and again.state[p[0]]["step"] == 2 and again.param_groups[0]["trust"] == 10
    again.step()
    assert calls == [1]  # loading keeps hooks
