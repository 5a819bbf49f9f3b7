"""What a parametrization and a pruning method may do, and what is refused: in PyTorch and here alike."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import gpugrad as gg


@pytest.fixture(params=["ours", "torch"])
def library(request):
    if request.param == "ours":
        return gg
    found = request.getfixturevalue("torch")
    for name in ("parametrize", "prune"):
        importlib.import_module(f"torch.nn.utils.{name}")
    return found


def making(library, forward=lambda x: x, **inverse):
    """A module that computes ``forward``, with a ``right_inverse`` if one is given."""

    class Made(library.nn.Module):
        def forward(self, *tensors):
            return forward(*tensors)

    if inverse:
        Made.right_inverse = lambda self, value: inverse["inverse"](value)
    return Made()


def absent(value):
    raise NotImplementedError


def layer(library):
    model = library.nn.Linear(3, 2, bias=False)
    model.weight.data.copy_(library.arange(1.0, 7.0).reshape(2, 3))
    return model


FIRST = [
    (lambda x: x, lambda v: "text"), (lambda x: x, lambda v: v.double()), (lambda a, b: a, lambda v: [v, "text"]),
    (lambda x: "text", None), (lambda x: x.double(), None), (lambda x: x[:1], None),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(FIRST)))
def test_a_first_one_keeps_what_the_tensor_is(case, library):
    forward, inverse = FIRST[case]
    made = making(library, forward, **({} if inverse is None else {"inverse": inverse}))
    with pytest.raises(ValueError):
        library.nn.utils.parametrize.register_parametrization(layer(library), "weight", made)


@pytest.mark.parametrize("forward", [lambda x: "text", lambda x: x.double(), lambda x: x[:1]], ids=range(3))
def test_so_does_a_further_one(forward, library):
    parametrize = library.nn.utils.parametrize
    model = layer(library)
    parametrize.register_parametrization(model, "weight", making(library, lambda x: x * 2))
    with pytest.raises(ValueError):
        parametrize.register_parametrization(model, "weight", making(library, forward))
    with pytest.raises(ValueError):
        parametrize.register_parametrization(model, "weight", making(library, inverse=lambda v: v[:1]))
    parametrize.register_parametrization(model, "weight", making(library, lambda x: x + 1, inverse=absent))
    np.testing.assert_allclose(model.weight.detach().numpy(), np.arange(1.0, 7.0).reshape(2, 3) * 2 + 1)


def test_assigning_goes_through_the_inverses(library):
    parametrize = library.nn.utils.parametrize
    model = layer(library)
    parametrize.register_parametrization(model, "weight", making(library, lambda x: x.exp(), inverse=lambda v: v.log()))
    model.weight = library.ones(2, 3) * 5
    np.testing.assert_allclose(model.weight.detach().numpy(), 5.0, rtol=1e-6)
    np.testing.assert_allclose(model.parametrizations.weight.original.detach().numpy(), np.log(5.0), rtol=1e-6)
    parametrize.register_parametrization(model, "weight", making(library))
    with pytest.raises(RuntimeError):
        model.weight = library.ones(2, 3)


def test_assigning_what_an_inverse_spoils(library):
    parametrize = library.nn.utils.parametrize
    for later in ("text", "double"):
        answers = [lambda v: v]
        model = layer(library)
        parametrize.register_parametrization(model, "weight", making(library, inverse=lambda v, a=answers: a[-1](v)))
        answers.append((lambda v: "text") if later == "text" else (lambda v: v.double()))
        with pytest.raises(ValueError):
            model.weight = library.ones(2, 3)


def _parts(library):
    """A parametrization of two originals: their sum."""
    return making(library, lambda a, b: a + b, inverse=lambda v: (v * 0.25, v * 0.75))


def test_one_of_two_originals(library):
    parametrize = library.nn.utils.parametrize
    model = layer(library)
    parametrize.register_parametrization(model, "weight", _parts(library))
    chain = model.parametrizations.weight
    np.testing.assert_allclose(chain.original0.detach().numpy() * 3, chain.original1.detach().numpy())
    model.weight = library.ones(2, 3) * 8
    assert chain.original1.tolist() == [[6.0] * 3] * 2
    with pytest.raises(ValueError):
        parametrize.remove_parametrizations(model, "weight", leave_parametrized=False)
    parametrize.remove_parametrizations(model, "weight")
    assert model.weight.tolist() == [[8.0] * 3] * 2 and type(model) is library.nn.Linear
    assert [n for n, _ in model.named_parameters()] == ["weight"]
    with pytest.raises(ValueError):
        parametrize.remove_parametrizations(model, "weight")


def test_another_number_of_parts(library):
    parametrize = library.nn.utils.parametrize
    counts = [2, 3]
    made = making(library, lambda a, b: a + b, inverse=lambda v: [v / 2] * counts[0])
    model = layer(library)
    parametrize.register_parametrization(model, "weight", made)
    counts.reverse()
    with pytest.raises(ValueError):
        model.weight = library.ones(2, 3)


def test_transfer(library):
    parametrize = library.nn.utils.parametrize
    plain, model, other = layer(library), layer(library), library.nn.Module()
    assert parametrize.transfer_parametrizations_and_params(plain, other) is other
    assert not parametrize.is_parametrized(other)
    parametrize.register_parametrization(model, "weight", making(library, lambda x: x * 2))
    parametrize.transfer_parametrizations_and_params(model, other)
    assert parametrize.is_parametrized(other, "weight")
    np.testing.assert_allclose(other.weight.detach().numpy(), model.weight.detach().numpy())
    assert parametrize.type_before_parametrizations(other) is library.nn.Module


# -- pruning ----------------------------------------------------------------------------------------------


def test_pruning_a_tensor_outside_of_a_module(library):
    method = library.nn.utils.prune.L1Unstructured(amount=2)
    t = library.tensor([3.0, -1.0, 0.5, 2.0])
    assert method.prune(t).tolist() == [3.0, 0.0, 0.0, 2.0]
    scores = library.tensor([0.0, 5.0, 5.0, 0.1])
    assert method.prune(t, importance_scores=scores).tolist() == [0.0, -1.0, 0.5, 0.0]


def test_pruning_twice_makes_a_container(library):
    prune = library.nn.utils.prune
    model = layer(library)
    prune.l1_unstructured(model, "weight", amount=1)
    prune.l1_unstructured(model, "weight", amount=2)
    assert model.weight.tolist() == [[0.0, 0.0, 0.0], [4.0, 5.0, 6.0]]
    hooks = list(model._forward_pre_hooks.values())
    container = getattr(hooks[0], "call", hooks[0])
    assert len(container) == 2 and [type(m).__name__ for m in container] == ["L1Unstructured"] * 2
    assert container[0].amount == 1
    other = prune.L1Unstructured(amount=1)
    other._tensor_name = "bias"
    with pytest.raises(ValueError):
        container.add_pruning_method(other)
    with pytest.raises((ValueError, AssertionError)):
        prune.l1_unstructured(layer(library), "weight", amount=1, importance_scores=library.ones(1))


def test_importance_scores_of_several_modules(library):
    prune = library.nn.utils.prune
    a, b = layer(library), layer(library)
    scores = {(a, "weight"): library.ones(2, 3), (b, "weight"): library.zeros(2, 3)}
    pairs = [(a, "weight"), (b, "weight")]
    prune.global_unstructured(pairs, prune.L1Unstructured, scores, amount=6)
    assert a.weight.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]] and b.weight.sum().item() == 0.0
    with pytest.raises(TypeError):
        prune.global_unstructured(pairs, prune.RandomStructured, amount=1)
