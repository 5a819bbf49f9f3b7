"""Every loss in every reduction, with its arguments new and old, against PyTorch."""

from __future__ import annotations

import inspect
import itertools
import math
import warnings

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn
from gpugrad.nn import functional as F
from tests import parity

RNG = np.random.RandomState(3)
A = {
    "x": RNG.standard_normal((4, 5)),
    "y": RNG.standard_normal((4, 5)),
    "z": RNG.standard_normal((4, 5)),
    "v": RNG.uniform(0.1, 2.0, (4, 5)),
    "p": RNG.uniform(0.05, 0.95, (4, 5)),
    "w": RNG.uniform(0.2, 2.0, (5,)),
    "c": np.array([1, 0, 4, 2]),
    "some": np.array([1, -100, 4, 2]),
    "signs": np.array([1, -1, -1, 1]),
    "signed": RNG.choice([-1, 1], (4, 5)),
    "many": np.array([[3, 0, -1, 2, 2], [-1, 1, 1, 1, 1], [4, 3, 2, 1, 0], [2, 2, -1, 0, 0]]),
    "pixels": RNG.standard_normal((2, 5, 3, 2)),
    "classes": RNG.randint(0, 5, (2, 3, 2)),
    "sharp": RNG.dirichlet(np.ones(5), (4,)),
    "image_p": np.moveaxis(RNG.dirichlet(np.ones(5), (2, 3, 2)), -1, 1).copy(),
    "long": RNG.standard_normal((7, 3, 4)),
    "spelt": np.array([[1, 2, 2], [3, 1, 3], [2, 2, 1]]),
    "joined": np.array([1, 2, 3, 2, 2, 1]),
}
PLAIN = [
    "mse_loss(x, y",
    "mse_loss(x, y, weight=v.detach()",
    "l1_loss(x, y",
    "l1_loss(x, y, weight=v.detach()",
    "smooth_l1_loss(x, y",
    "smooth_l1_loss(x, y, beta=0.3",
    "smooth_l1_loss(x, y, beta=0.0",
    "huber_loss(x, y, delta=0.4",
    "huber_loss(x, y, weight=v.detach()",
    "binary_cross_entropy(p, y.sigmoid()",
    "binary_cross_entropy(p, p.detach(), w.detach()",
    "binary_cross_entropy_with_logits(x, p",
    "binary_cross_entropy_with_logits(x, p, w.detach(), pos_weight=w.detach() + 1",
    "kl_div(x, p",
    "kl_div(x, y, log_target=True",
    "poisson_nll_loss(x, v",
    "poisson_nll_loss(v, v * 3, log_input=False, full=True, eps=1e-3",
    "gaussian_nll_loss(x, y, v",
    "gaussian_nll_loss(x, y, v[:, :1], full=True, eps=0.5",
    "gaussian_nll_loss(x, y, v[:, 0]",
    "hinge_embedding_loss(x, signed, 0.5",
    "margin_ranking_loss(x, y, signed, 0.3",
    "cosine_embedding_loss(x, y, signs, -0.2",
    "soft_margin_loss(x, signed",
    "triplet_margin_loss(x, y, z",
    "triplet_margin_loss(x, y, z, 0.7, 1.0, swap=True",
    "triplet_margin_with_distance_loss(x, y, z, margin=0.7, distance_function=lambda a, b: (a - b).abs().sum(-1)",
    "multi_margin_loss(x, c",
    "multi_margin_loss(x, c, 2, 0.6, w.detach()",
    "multilabel_margin_loss(x, many",
    "multilabel_margin_loss(x[0], many[0]",
    "multilabel_soft_margin_loss(x, p",
    "multilabel_soft_margin_loss(x, p, w.detach()",
    "nll_loss(x, c",
    "nll_loss(x, some, w.detach()",
    "nll_loss(pixels, classes, w.detach(), ignore_index=2",
    "nll_loss(x[0], c[0]",
    "cross_entropy(x, c",
    "cross_entropy(x, some, w.detach(), label_smoothing=0.2",
    "cross_entropy(x, c, ignore_index=4, label_smoothing=0.1",
    "cross_entropy(pixels, classes, w.detach(), label_smoothing=0.3, ignore_index=1",
    "cross_entropy(x, sharp",
    "cross_entropy(x, sharp, w.detach(), label_smoothing=0.2",
    "cross_entropy(pixels, image_p, w.detach(), label_smoothing=0.2",
    "cross_entropy(x[0], sharp[0]",
    "cross_entropy(x[0], c[0], w.detach()",
    "linear_cross_entropy(x, y, some % 4, label_smoothing=0.1",
    "ctc_loss(long.log_softmax(2), spelt, (7, 5, 6), (3, 2, 1)",
    "ctc_loss(long, spelt, (7, 5, 6), (3, 2, 0), 3",
    "ctc_loss(long.log_softmax(2), joined, T.tensor([7, 7, 7]), T.tensor([2, 1, 3])",
    "ctc_loss(long.log_softmax(2), spelt, (7, 2, 7), (3, 3, 3), zero_infinity=True",
    "ctc_loss(long[:, 0].log_softmax(1), joined[:2], (7,), (2,)",
]
CALLS = [f"T.nn.functional.{call}, reduction={r!r})" for call in PLAIN for r in ("mean", "sum", "none")]
CALLS.append("T.nn.functional.kl_div(x, p, reduction='batchmean')")


def _arrays(call):
    import re

    words = set(re.findall(r"[a-z_0-9]+", call.split("(", 1)[1]))
    return {k: v for k, v in A.items() if k in words}


@pytest.mark.parametrize("call", CALLS)
def test_values_and_gradients_are_pytorchs(call, torch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parity.gradients(call, _arrays(call), torch, atol=1e-7)


@pytest.mark.parametrize("call", [c for c in CALLS if "reduction='mean'" in c])
def test_every_device_agrees_with_the_cpu(call, device):
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for where in ("cpu", device):
            leaves = {}
            for k, v in _arrays(call).items():
                floating = v.dtype.kind == "f"
                value = v.astype(np.float32) if floating else v
                leaves[k] = gg.tensor(value, device=where, requires_grad=floating)
            out = eval(call, {"T": gg, **leaves})
            out.backward()
            found.append([out.detach(), *(x.grad for x in leaves.values() if x.grad is not None)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(b.cpu().numpy(), a.numpy(), rtol=2e-4, atol=1e-5)


# -- the old arguments -------------------------------------------------------------------
OLD = {
    "mse_loss": "x, y",
    "l1_loss": "x, y",
    "smooth_l1_loss": "x, y",
    "binary_cross_entropy": "p, p",
    "binary_cross_entropy_with_logits": "x, p",
    "kl_div": "x, p",
    "poisson_nll_loss": "x, v",
    "hinge_embedding_loss": "x, signed",
    "margin_ranking_loss": "x, y, signed",
    "cosine_embedding_loss": "x, y, signs",
    "soft_margin_loss": "x, signed",
    "triplet_margin_loss": "x, y, z",
    "multi_margin_loss": "x, c",
    "multilabel_margin_loss": "x, many",
    "multilabel_soft_margin_loss": "x, p",
    "nll_loss": "x, c",
    "cross_entropy": "x, c",
}


@pytest.mark.parametrize("name", list(OLD))
def test_old_reduction_arguments(name, torch):
    arrays = {k: v for k, v in A.items() if k in OLD[name].split(", ")}
    for average, reduce in itertools.product((None, True, False), repeat=2):
        call = f"T.nn.functional.{name}({OLD[name]}, size_average={average}, reduce={reduce})"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parity.check(call, arrays, torch)
    with pytest.warns(UserWarning, match="reduction='sum'"):
        getattr(F, name)(*(gg.tensor(A[k]) for k in OLD[name].split(", ")), size_average=False)


def test_signatures_are_pytorchs(torch):
    for name in {call.split("(")[0] for call in PLAIN}:
        ours = [(p.name, p.kind) for p in inspect.signature(getattr(F, name)).parameters.values()]
        theirs = [(p.name, p.kind) for p in inspect.signature(getattr(torch.nn.functional, name)).parameters.values()]
        assert ours == theirs, name
    for name in [n for n in dir(torch.nn) if n.endswith("Loss")]:
        ours = [(p.name, p.kind) for p in inspect.signature(getattr(nn, name)).parameters.values()]
        theirs = [(p.name, p.kind) for p in inspect.signature(getattr(torch.nn, name)).parameters.values()]
        assert ours == theirs, name


MODULES = [
    ("CTCLoss(blank=3, reduction='sum')", "long, spelt, (7, 5, 6), (3, 2, 1)"),
    ("MultiLabelMarginLoss()", "x, many"),
    ("MultiLabelSoftMarginLoss(reduction='none')", "x, p"),
    ("MSELoss(size_average=False)", "x, y"),
    ("L1Loss(reduce=False)", "x, y"),
    ("NLLLoss(None, True, 2)", "x, c"),
    ("NLLLoss2d()", "pixels, classes"),
    ("CrossEntropyLoss(T.ones(5), None, 1, None, 'sum', 0.1)", "x, c"),
    ("KLDivLoss(reduction='batchmean', log_target=True)", "x, y"),
    ("TripletMarginLoss(0.5, 1.0, 1e-3, True)", "x, y, z"),
    ("PoissonNLLLoss(True, True)", "x, v"),
    ("GaussianNLLLoss(full=True)", "x, y, v"),
    ("HuberLoss('sum', 0.5)", "x, y"),
    ("SmoothL1Loss(reduction='sum', beta=0.5)", "x, y"),
    ("CosineEmbeddingLoss(0.1)", "x, y, signs"),
    ("MarginRankingLoss(0.1, reduction='none')", "x, y, signed"),
    ("MultiMarginLoss(2, 0.5)", "x, c"),
    ("SoftMarginLoss()", "x, signed"),
    ("HingeEmbeddingLoss(0.5)", "x, signed"),
    ("BCELoss(reduction='sum')", "p, p"),
    ("BCEWithLogitsLoss(pos_weight=T.ones(5) * 2)", "x, p"),
    ("TripletMarginWithDistanceLoss(margin=0.5)", "x, y, z"),
]


@pytest.mark.parametrize("make, arguments", MODULES, ids=[m for m, _ in MODULES])
def test_modules_are_pytorchs(make, arguments, torch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        a = {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in A.items()}
        parity.check(f"T.nn.{make}({arguments})", a, torch)
        assert repr(eval(f"T.nn.{make}", {"T": gg})) == repr(eval(f"T.nn.{make}", {"T": torch}))


# -- known values, without PyTorch ---------------------------------------------------------
def test_ctc_of_a_uniform_alphabet(device):
    # Three times, two symbols of probability 1/2: of the eight paths 1--, 11-, 111, -1-, -11, --1 spell "1".
    scores = gg.full((3, 1, 2), math.log(0.5), device=device)
    loss = F.ctc_loss(scores, gg.tensor([[1]], device=device), (3,), (1,), reduction="none")
    np.testing.assert_allclose(loss.cpu().numpy(), [-math.log(6 / 8)], rtol=1e-5)
    with pytest.raises(RuntimeError, match="more than the 3 times"):
        F.ctc_loss(scores, gg.tensor([[1]], device=device), (4,), (1,))


def test_a_target_too_long_is_infinite(device):
    scores = gg.zeros(2, 1, 3, device=device, requires_grad=True)
    target = gg.tensor([[1, 1]], device=device)
    assert F.ctc_loss(scores.log_softmax(2), target, (2,), (2,)).item() == math.inf
    loss = F.ctc_loss(scores.log_softmax(2), target, (2,), (2,), zero_infinity=True)
    loss.backward()
    assert loss.item() == 0.0 and not scores.grad.cpu().numpy().any()


def test_adaptive_softmax(torch, device):
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10], div_value=2.0, head_bias=True)
    ours = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10], div_value=2.0, head_bias=True)
    assert repr(ours) == repr(theirs)
    ours.load_state_dict({k: gg.tensor(v.detach().numpy()) for k, v in theirs.state_dict().items()})
    ours.to(device)
    x, t = RNG.standard_normal((6, 8)).astype(np.float32), np.array([0, 12, 3, 5, 19, 4])
    a, b = gg.tensor(x, device=device, requires_grad=True), torch.tensor(x, requires_grad=True)
    got, want = ours(a, gg.tensor(t, device=device)), theirs(b, torch.tensor(t))
    got.loss.backward()
    want.loss.backward()
    parity.same((got.output, got.loss, a.grad), (want.output, want.loss, b.grad), rtol=1e-4)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        parity.same(p.grad, q.grad, rtol=1e-4)
    parity.same(ours.log_prob(a), theirs.log_prob(b), rtol=1e-4)
    parity.same(ours.predict(a), theirs.predict(b))
    np.testing.assert_allclose(ours.log_prob(a).exp().sum(1).detach().cpu().numpy(), 1.0, rtol=1e-5)
    with pytest.raises(RuntimeError, match="targets must lie in"):
        ours(a, gg.tensor(t + 1, device=device))
    with pytest.raises(ValueError, match="cutoffs"):
        nn.AdaptiveLogSoftmaxWithLoss(8, 20, [10, 4])


def test_linear_cross_entropy_module(torch):
    theirs = torch.nn.LinearCrossEntropyLoss(5, 4, bias=True, label_smoothing=0.1)
    ours = nn.LinearCrossEntropyLoss(5, 4, bias=True, label_smoothing=0.1)
    assert repr(ours) == repr(theirs)
    ours.load_state_dict({k: gg.tensor(v.detach().numpy()) for k, v in theirs.state_dict().items()})
    x, t = A["x"].astype(np.float32), A["c"] % 4
    parity.same(ours(gg.tensor(x), gg.tensor(t)), theirs(torch.tensor(x), torch.tensor(t)))


@pytest.mark.parametrize(
    "call",
    [
        "T.nn.functional.ctc_loss(long, spelt, (7, 5), (3, 2, 1))",
        "T.nn.functional.ctc_loss(long, spelt, (7, 5, 9), (3, 2, 1))",
        "T.nn.functional.ctc_loss(long, spelt, (7, 5, 6), (3, 2, 4))",
        "T.nn.functional.ctc_loss(long, spelt, (7, 5, 6), (3, 2, 1), blank=4)",
        "T.nn.functional.ctc_loss(long, spelt, (7, 5, 6), (3, 2, 1), reduction='avg')",
        "T.nn.functional.multilabel_margin_loss(x, many[:2])",
        "T.nn.functional.multilabel_margin_loss(x, many, reduction='avg')",
        "T.nn.functional.nll_loss(x, c[:2])",
        "T.nn.functional.cross_entropy(x, c, label_smoothing=1.5)",
        "T.nn.functional.cross_entropy(x, c, reduction='avg')",
        "T.nn.functional.binary_cross_entropy(p, c)",
        "T.nn.functional.binary_cross_entropy_with_logits(x, c)",
        "T.nn.functional.smooth_l1_loss(x, y, beta=-1.0)",
        "T.nn.functional.huber_loss(x, y, delta=0.0)",
        "T.nn.functional.multi_margin_loss(x, c, p=3)",
        "T.nn.functional.gaussian_nll_loss(x, y, -v)",
        "T.nn.functional.gaussian_nll_loss(x, y, v[:2])",
        "T.nn.functional.margin_ranking_loss(x, y, signs)",
        "T.nn.functional.cosine_embedding_loss(x, y, signed)",
        "T.nn.functional.triplet_margin_loss(x, y, z, margin=-1.0)",
        "T.nn.MSELoss(reduction='avg')(x, y)",
    ],
)
def test_errors_have_pytorchs_types(call, torch):
    parity.check(call, A, torch)
