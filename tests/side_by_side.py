"""A module of PyTorch and ours with the same weights, on the same inputs: results and all gradients compared."""

from __future__ import annotations

import warnings

import numpy as np

import gpugrad as gg
from tests import parity

TOLERANCE = {"float32": (2e-4, 2e-5), "float64": (1e-9, 1e-11)}


def flat(result):
    """The tensors in nested tuples and lists, None left out."""
    if isinstance(result, (tuple, list)):
        return [x for r in result for x in flat(r)]
    return [] if result is None else [result]


def load(ours, theirs, device, dtype):
    """``ours`` with the weights of ``theirs``, by the state dict; all names agree."""
    state = {k: gg.tensor(v.numpy(force=True)) for k, v in theirs.state_dict().items()}
    assert list(state) == list(ours.state_dict())
    ours = ours.to(device=device, dtype=getattr(gg, dtype))
    ours.load_state_dict(state)
    return ours


def close(got, want, dtype, what=""):
    assert (got is None) == (want is None), what
    if got is None:
        return
    assert tuple(got.shape) == tuple(want.shape), what
    rtol, atol = TOLERANCE[dtype]
    found = got.detach().cpu().numpy()
    assert found.dtype == want.detach().numpy().dtype, what
    np.testing.assert_allclose(found, want.detach().numpy(), rtol=rtol, atol=atol, err_msg=what)


def compare(torch, make, call, arrays, device="cpu", dtype="float32", train=True):
    """``call(library, module, **tensors)`` for ``make(library)`` in both libraries. Floating arrays are converted
    to ``dtype`` and differentiated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = make(torch).to(getattr(torch, dtype)).train(train)
    with torch.no_grad():
        rng = np.random.RandomState(5)
        for p in theirs.parameters():  # biases that start at 0 would hide mistakes
            p.copy_(torch.from_numpy(rng.standard_normal(tuple(p.shape)) * 0.5))
    ours = load(make(gg), theirs, device, dtype).train(train)
    results = []
    for library, module in ((torch, theirs), (gg, ours)):
        tensors = {}
        for name, a in arrays.items():
            wide = a.astype(dtype) if a.dtype.kind == "f" else a
            t = parity.to_torch(wide, torch) if library is torch else gg.tensor(wide, device=device)
            tensors[name] = t.requires_grad_() if a.dtype.kind == "f" and np.isfinite(a).all() else t
        outputs = flat(call(library, module, **tensors))
        weights = np.random.RandomState(7)
        total = 0
        for o in outputs:
            if o.requires_grad:
                w = weights.standard_normal(tuple(o.shape)).astype(dtype)
                total = total + (o * (torch.from_numpy(w) if library is torch else gg.tensor(w, device=device))).sum()
        total.backward()
        results.append((outputs, {k: t.grad for k, t in tensors.items()}, dict(module.named_parameters())))
    (want, want_inputs, want_params), (got, got_inputs, got_params) = results
    assert len(got) == len(want)
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        close(g, w, dtype, f"output {i}")
    for name in arrays:
        close(got_inputs[name], want_inputs[name], dtype, f"gradient of {name}")
    for name, p in want_params.items():
        close(got_params[name].grad, p.grad, dtype, f"gradient of {name}")
