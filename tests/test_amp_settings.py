"""Autocast's settings one by one, Functions under it, old names, and what GradScaler refuses."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import amp
from gpugrad.amp import autocast_mode as settings
from gpugrad.autograd import Function

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def scaled_step(library, **options):
    """A scaler after a first scale(), its parameter and its optimizer."""
    p = library.nn.Parameter(library.ones(2))
    scaler = library.amp.GradScaler("cpu", **options)
    optimizer = library.optim.SGD([p], lr=0.1)
    scaler.scale((p * 2).sum()).backward()
    return scaler, p, optimizer


# -- autocast ------------------------------------------------------------------------------------------


def test_switches_act_on_the_thread():
    x = gg.tensor(X)
    assert amp.is_autocast_available("cpu") and amp.is_autocast_available("cuda")
    with pytest.raises(RuntimeError):
        amp.is_autocast_available("nonsense")
    before = settings.get_autocast_dtype("cpu")
    settings.set_autocast_enabled("cpu", True)
    try:
        assert (x @ x.T).dtype is gg.bfloat16
        settings.set_autocast_dtype("cpu", gg.float16)
        assert (x @ x.T).dtype is gg.float16
    finally:
        settings.set_autocast_enabled("cpu", False)
        settings.set_autocast_dtype("cpu", before)
    assert (x @ x.T).dtype is gg.float32
    settings.set_autocast_enabled(False)  # CUDA's
    assert not settings.is_autocast_enabled()


def test_casts_of_parameters_are_kept_until_told_otherwise():
    w = gg.tensor(X, requires_grad=True)
    state = settings.casting.state
    with gg.autocast("cpu"):
        gg.matmul(w, w.T)
        assert len(state.casts) == 1
        settings.clear_autocast_cache()
        assert not state.casts
        assert settings.is_autocast_cache_enabled()
        settings.set_autocast_cache_enabled(False)
        gg.matmul(w, w.T)
        assert not state.casts and not settings.is_autocast_cache_enabled()
    assert settings.is_autocast_cache_enabled()
    assert settings.autocast_increment_nesting() == 1  # a context around those that follow
    with gg.autocast("cpu"):
        gg.matmul(w, w.T)
    assert len(state.casts) == 1
    assert settings.autocast_decrement_nesting() == 0
    settings.clear_autocast_cache()


def test_a_dtype_that_is_no_half_warns():
    x = gg.tensor(X)
    with pytest.warns(UserWarning, match="float16 or bfloat16, not float64"), gg.autocast("cpu", dtype=gg.float64):
        assert (x @ x.T).dtype is gg.float32


def test_the_widest_dtype_of_several(device):
    """Functions that take what they are given, and promote it where it differs: in lists of tensors too."""
    x = gg.tensor(X, device=device)
    half = x.bfloat16()
    name = "index_copy" if device == "cpu" else "addcmul"
    with gg.autocast(device):
        if name == "index_copy":
            out = gg.index_copy(x, 0, gg.tensor([0], device=device), half[:1])
        else:
            out = gg.addcmul(x, half, half)
            assert gg.tensordot(half, half, dims=([0, 1], [0, 1])).dtype is gg.bfloat16
    assert out.dtype is gg.float32


@pytest.mark.parametrize("kind", ["opencl", "pretend"])
def test_lists_and_refusals_of_accelerators(kind):
    if not gg.is_available(kind):
        pytest.skip(f"no {kind}")
    x = gg.tensor(X, device=kind)
    with gg.autocast(kind):
        assert gg.chain_matmul(x, x.T, x).dtype is gg.float16
        assert gg.linalg.multi_dot([x, x.T, x]).dtype is gg.float16
        with pytest.raises(RuntimeError, match="binary_cross_entropy_with_logits"):
            gg.nn.functional.binary_cross_entropy(x.sigmoid(), x.sigmoid())


# -- functions of one's own -----------------------------------------------------------------------------


def _product(library, cast_inputs):
    """A Function that notes the dtypes its two halves see."""
    seen = []

    class Product(library.autograd.Function):
        @staticmethod
        @library.amp.custom_fwd(device_type="cpu", cast_inputs=cast_inputs)
        def forward(ctx, a, b, extra=None):
            ctx.save_for_backward(a, b)
            out = a @ b
            seen.append([str(t.dtype).split(".")[-1] for t in (a, out)])
            return out

        @staticmethod
        @library.amp.custom_bwd(device_type="cpu")
        def backward(ctx, g):
            a, b = ctx.saved_tensors
            left, right = g @ b.T, a.T @ g
            seen.append([str(t.dtype).split(".")[-1] for t in (g, left, right)])
            return left, right, None

    return Product, seen


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("cast", [None, "float32", "bfloat16"])
def test_functions_as_pytorch(cast, enabled, torch):
    told = []
    for library in (torch, gg):
        Product, seen = _product(library, None if cast is None else getattr(library, cast))
        a = library.tensor(X.tolist(), requires_grad=True)
        b = library.tensor(X.T.tolist(), requires_grad=True)
        with library.autocast("cpu", dtype=library.bfloat16, enabled=enabled):
            out = Product.apply(a, b)
        out.float().sum().backward()
        told.append([seen, str(a.grad.dtype).split(".")[-1], a.grad.numpy()])
    assert told[0][:2] == told[1][:2]
    np.testing.assert_allclose(told[1][2], told[0][2], rtol=2e-2, atol=2e-2)


def test_inputs_are_cast_wherever_they_are():
    @amp.custom_fwd(device_type="cpu", cast_inputs=gg.float32)
    def forward(ctx, tensors, by_name, *, number, integers):
        return tensors, by_name, number, integers

    half, whole = gg.ones(2, dtype=gg.bfloat16), gg.tensor([1, 2])
    with gg.autocast("cpu"):
        tensors, by_name, number, integers = forward(Function(), [half, (half,)], {"a": half}, number=3, integers=whole)
    assert tensors[0].dtype is tensors[1][0].dtype is by_name["a"].dtype is gg.float32
    assert number == 3 and integers is whole
    wide = gg.ones(2, dtype=gg.float64)
    with gg.autocast("cpu"):
        assert forward(Function(), [wide], {}, number=0, integers=whole)[0][0] is wide


# -- old names ------------------------------------------------------------------------------------------


def test_names_of_the_cpu():
    assert gg.cpu.is_available() and gg.cpu.is_initialized() and gg.cpu.device_count() == 1
    assert gg.cpu.current_device() == "cpu" and gg.cpu.synchronize() is None
    with pytest.raises(AttributeError, match="Stream"):
        gg.cpu.Stream  # noqa: B018
    x = gg.tensor(X)
    with pytest.warns(FutureWarning, match="old name"):
        old = gg.cpu.amp.autocast()
    with old:
        assert (x @ x.T).dtype is gg.bfloat16
    with pytest.warns(FutureWarning, match="old name"):
        scaler = gg.cpu.amp.GradScaler(init_scale=8.0)
    assert scaler.get_scale() == 8.0 and scaler.is_enabled()


# -- the scaler -----------------------------------------------------------------------------------------


def test_scaler_settings():
    scaler = amp.GradScaler("cpu", growth_factor=3.0, backoff_factor=0.25, growth_interval=7)
    assert (scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval()) == (3.0, 0.25, 7)
    scaler.set_growth_factor(2.0)
    scaler.set_backoff_factor(0.5)
    scaler.set_growth_interval(1)
    p = gg.nn.Parameter(gg.ones(2))
    optimizer = gg.optim.SGD([p], lr=0.1)
    before = scaler.get_scale()
    for wanted in (2.0, 4.0, 2.0):
        p.grad = None
        factor = float("inf") if wanted == 2.0 and scaler.get_scale() == 4.0 * before else 1.0
        scaler.scale((p * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == wanted * before


def test_scale_takes_what_holds_tensors():
    scaler = amp.GradScaler("cpu", init_scale=4.0)
    one = gg.ones(())
    listed, paired = scaler.scale([one, (one, one)])
    assert listed.item() == 4.0 and type(paired) is tuple and paired[1].item() == 4.0
    assert [t.item() for t in scaler.scale(x for x in (one, one))] == [4.0, 4.0]
    with pytest.raises(ValueError, match="expected a tensor"):
        scaler.scale(3.0)


@pytest.mark.parametrize("name", ["ours", "torch"])
def test_scaler_refuses(name, request):
    library = gg if name == "ours" else request.getfixturevalue("torch")
    scaler, p, optimizer = scaled_step(library)
    with pytest.raises(AssertionError):
        scaler.update()  # nothing was checked
    with pytest.raises(RuntimeError):
        scaler.step(optimizer, closure=lambda: None)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError):
        scaler.unscale_(optimizer)  # after the step
    with pytest.raises(AssertionError):
        pickle.dumps(scaler)
    scaler.update()
    p.grad = None
    with pytest.raises(AssertionError):
        scaler.step(optimizer)  # no gradient to check
    with pytest.raises(RuntimeError):
        scaler.load_state_dict({})
    for wrong in ({"growth_factor": 1.0}, {"backoff_factor": 1.0}):
        with pytest.raises(AssertionError):
            library.amp.GradScaler("cpu", **wrong)
    half = library.nn.Parameter(library.ones(2).half())
    half.grad = library.ones(2).half()
    with pytest.raises(ValueError):
        scaler.unscale_(library.optim.SGD([half], lr=0.1))


def test_scaler_set_by_hand_and_pickled():
    scaler, p, optimizer = scaled_step(gg, init_scale=8.0)
    q = gg.nn.Parameter(gg.ones(1))  # without a gradient
    optimizer.add_param_group({"params": [q]})
    scaler.step(optimizer)
    np.testing.assert_allclose(p.detach().numpy(), 0.8, rtol=1e-6)
    scaler.update(gg.tensor(32.0))
    assert scaler.get_scale() == 32.0
    again = pickle.loads(pickle.dumps(scaler))
    assert again.state_dict() == scaler.state_dict()
    assert again.scale(gg.ones(())).item() == 32.0


def test_disabled_scaler_changes_nothing():
    scaler = amp.GradScaler("cpu", enabled=False)
    p = gg.nn.Parameter(gg.ones(2))
    optimizer = gg.optim.SGD([p], lr=0.5)
    loss = p.sum()
    assert scaler.scale(loss) is loss and scaler.get_scale() == 1.0
    loss.backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.state_dict() == {} and p.tolist() == [0.5, 0.5]
    scaler.load_state_dict({"scale": 3.0})
    assert scaler.get_scale() == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pickle.loads(pickle.dumps(scaler)).is_enabled() is False
