"""Module: attributes, listing, saving, hooks, moving, containers."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.tail = nn.Sequential(nn.ReLU(), nn.Linear(4, 2, bias=False))
        self.scale = nn.Parameter(gg.ones(2))
        self.register_buffer("seen", gg.zeros(1), persistent=False)

    def forward(self, x):
        return self.tail(self.norm(self.first(x))) * self.scale


NAMES = ["scale", "first.weight", "first.bias", "norm.weight", "norm.bias", "tail.1.weight"]


# -- attributes and listing ---------------------------------------------------------------
def test_listing():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == NAMES
    assert [n for n, _ in net.named_parameters(prefix="net", recurse=False)] == ["net.scale"]
    assert [n for n, _ in net.named_buffers()] == [
        "seen", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]  # fmt: skip
    assert [n for n, _ in net.named_modules()] == ["", "first", "norm", "tail", "tail.0", "tail.1"]
    assert [n for n, _ in net.named_children()] == ["first", "norm", "tail"]
    assert net.get_submodule("tail.1") is net.tail[1]
    assert net.get_parameter("tail.1.weight") is net.tail[1].weight
    assert net.get_buffer("norm.running_var") is net.norm.running_var
    assert "scale" in dir(net) and "first" in dir(net)


def test_shared_parameters_are_listed_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert len(list(net.parameters())) == 3
    assert len(list(net.named_parameters(remove_duplicate=False))) == 4
    twice = nn.ModuleList([net, net])
    assert len(list(twice.parameters())) == 3
    assert len(net.state_dict()) == 4
    net.double()
    assert net[1].weight is net[0].weight


def test_attributes_move_between_the_tables():
    m = nn.Module()
    m.x = 3
    m.x = nn.Parameter(gg.ones(1))
    assert "x" in m._parameters and "x" not in m.__dict__
    m.x = None
    assert m.x is None and list(m.parameters()) == []
    m.y = nn.Buffer(gg.zeros(2), persistent=False)
    assert list(m.state_dict()) == [] and [n for n, _ in m.named_buffers()] == ["y"]
    m.y = gg.ones(2)
    assert m.get_buffer("y").tolist() == [1, 1]
    m.y = nn.Linear(1, 1)
    assert "y" not in m._buffers and [n for n, _ in m.named_children()] == ["y"]
    del m.y
    with pytest.raises(AttributeError, match="'Module' object has no attribute 'y'"):
        m.y  # noqa: B018


def test_mistakes_with_attributes():
    class Forgetful(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"Forgetful: call super\(\).__init__\(\) before"):
        Forgetful()

    class Silent(nn.Module):
        def __init__(self):
            pass

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\)"):
        Silent()(1)
    net = Net()
    with pytest.raises(TypeError, match="parameter 'scale' can be set to .*, not Tensor"):
        net.scale = gg.ones(2)
    with pytest.raises(TypeError, match="module 'first' can be set to .*, not int"):
        net.first = 3
    with pytest.raises(TypeError, match="buffer 'seen' can be set to .*, not str"):
        net.seen = "no"
    with pytest.raises(KeyError, match="Net already has an attribute 'forward'"):
        net.register_buffer("forward", gg.ones(1))
    with pytest.raises(KeyError, match="the name of a parameter must not contain .*a.b"):
        net.register_parameter("a.b", None)
    with pytest.raises(TypeError, match="'p' must be a Parameter or None, not Tensor"):
        net.register_parameter("p", gg.ones(1))
    with pytest.raises(TypeError, match="'m' must be a Module or None, not Tensor"):
        net.add_module("m", gg.ones(1))
    with pytest.raises(AttributeError, match="has no submodule `missing`"):
        net.get_submodule("tail.missing")
    with pytest.raises(TypeError, match="data must be a Tensor, not list"):
        nn.Parameter([1.0])
    with pytest.raises(RuntimeError, match="float"):
        nn.Parameter(gg.arange(3))
    with pytest.raises(NotImplementedError, match=r"Module cannot be called: it defines no forward\(\)"):
        nn.Module()(1)


def test_parameter_is_a_tensor_that_shares_memory(device):
    data = gg.zeros(3, device=device)
    p = nn.Parameter(data)
    assert isinstance(p, gg.Tensor) and p.requires_grad and p.is_leaf and not data.requires_grad
    data.add_(1.0)
    assert p.tolist() == [1, 1, 1]
    assert type(p * 2) is gg.Tensor
    assert repr(p).startswith("Parameter containing:\n")
    assert not nn.Parameter(gg.arange(3), requires_grad=False).requires_grad


def test_repr():
    assert repr(Net()) == (
        "Net(\n  (first): Linear(in_features=3, out_features=4, bias=True)\n"
        "  (norm): BatchNorm1d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, "
        "track_running_stats=True)\n"
        "  (tail): Sequential(\n    (0): ReLU()\n    (1): Linear(in_features=4, out_features=2, bias=False)\n  )\n)"
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda n: n.Conv2d(2, 4, 3, stride=2, padding=1, dilation=2, groups=2, bias=False, padding_mode="reflect"),
        lambda n: n.ConvTranspose1d(2, 4, 3, stride=2, output_padding=1),
        lambda n: n.MaxPool2d(2, ceil_mode=True),
        lambda n: n.AvgPool1d(2),
        lambda n: n.AvgPool2d(3, 2),
        lambda n: n.AdaptiveAvgPool2d((2, None)),
        lambda n: n.Dropout(0.1, inplace=True),
        lambda n: n.GELU("tanh"),
        lambda n: n.Sequential(
            n.ReLU(inplace=True), n.LeakyReLU(0.2), n.Softmax(dim=1), n.Hardtanh(-2, 2), n.ELU(), n.Softplus()
        ),
        lambda n: n.ModuleList([n.Linear(2, 2), n.Linear(2, 2), n.Tanh()]),
        lambda n: n.ModuleDict(
            {"a": n.GroupNorm(2, 4), "b": n.LayerNorm(3), "c": n.InstanceNorm2d(3), "d": n.RMSNorm(3)}
        ),
        lambda n: n.Embedding(3, 4, padding_idx=-1, max_norm=1.0),
        lambda n: n.Sequential(
            n.Flatten(), n.Unflatten(1, (2, 3)), n.PReLU(3), n.Threshold(0.1, 2), n.GLU(), n.Identity()
        ),
        lambda n: n.CrossEntropyLoss(),
        lambda n: n.Bilinear(2, 3, 4),
    ],
)
def test_repr_like_pytorch(torch, make):
    assert repr(make(nn)) == repr(make(torch.nn))


# -- modes, gradients, moving ------------------------------------------------------------------
def test_train_eval_apply_zero_grad():
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    net.train()
    assert all(m.training for m in net.modules())
    with pytest.raises(ValueError, match="mode must be a bool"):
        net.train(1)
    order = []
    net.apply(lambda m: order.append(type(m).__name__))
    assert order == ["Linear", "BatchNorm1d", "ReLU", "Linear", "Sequential", "Net"]
    net(gg.randn(5, 3)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert all((p.grad == 0).all().item() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_(False)
    assert not net(gg.randn(5, 3)).requires_grad


def test_moving_keeps_the_parameters_identity(device):
    net = Net()
    before = list(net.parameters())
    expected = net.eval()(gg.ones(2, 3)).detach().numpy()
    net.to(device)
    assert all(a is b for a, b in zip(before, net.parameters(), strict=True))
    assert all(p.device == gg.device(device) and p.is_leaf and p.requires_grad for p in net.parameters())
    assert all(b.device == gg.device(device) for b in net.buffers())
    np.testing.assert_allclose(net(gg.ones(2, 3, device=device)).detach().cpu().numpy(), expected, rtol=1e-5)
    net(gg.ones(2, 3, device=device)).sum().backward()
    net.cpu()
    assert net.scale.grad.device.type == "cpu"
    assert net.norm.num_batches_tracked.dtype is gg.int64


def test_converting_leaves_integers_alone():
    net = Net().half()
    assert net.first.weight.dtype is gg.float16 and net.norm.num_batches_tracked.dtype is gg.int64
    assert net.bfloat16().scale.dtype is gg.bfloat16
    assert net.double().scale.dtype is gg.float64 and net.float().scale.dtype is gg.float32
    assert net.to(gg.ones(1, dtype=gg.float64)).scale.dtype is gg.float64
    assert net.to("cpu", gg.float32).scale.dtype is gg.float32
    with pytest.raises(TypeError, match="Module.to: .* floating-point dtypes"):
        net.to(gg.int32)


def test_copy_and_pickle():
    net = Net()
    net.first.weight.requires_grad_(False)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert [n for n, _ in other.named_parameters()] == NAMES
        assert isinstance(other.scale, nn.Parameter) and not other.first.weight.requires_grad
        other.scale.data.fill_(5.0)
        assert net.scale.tolist() == [1, 1]
        x = gg.randn(4, 3)
        other.scale.data.fill_(1.0)
        np.testing.assert_array_equal(other.eval()(x).detach().numpy(), net.eval()(x).detach().numpy())


# -- saving -------------------------------------------------------------------------------------
def test_state_dict_round_trip(device):
    net, other = Net(), Net().to(device)
    net(gg.randn(8, 3))
    state = net.state_dict()
    assert isinstance(state, OrderedDict)
    assert list(state) == ["scale", "first.weight", "first.bias", "norm.weight", "norm.bias", "norm.running_mean",
                           "norm.running_var", "norm.num_batches_tracked", "tail.1.weight"]  # fmt: skip
    assert not any(v.requires_grad for v in state.values())
    assert net.state_dict(keep_vars=True)["scale"] is net.scale
    assert list(net.state_dict(prefix="m."))[0] == "m.scale"
    result = other.load_state_dict(state)
    assert str(result) == "<All keys matched successfully>"
    for key, value in other.state_dict().items():
        np.testing.assert_array_equal(value.cpu().numpy(), state[key].numpy())
        assert value.device == gg.device(device)


def test_load_state_dict_says_all_that_is_wrong():
    net = Net()
    state = net.state_dict()
    del state["first.bias"], state["norm.running_var"]
    state["tail.0.weight"] = gg.ones(1)
    state["extra"] = gg.ones(1)
    state["scale"] = gg.ones(3)
    state["first.weight"] = [1.0]
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    text = str(caught.value)
    assert text.startswith("load_state_dict: the state dict does not fit Net:\n\t")
    assert '\tmissing keys: "first.bias", "norm.running_var"\n' in text
    assert '\tunexpected keys: "extra", "tail.0.weight"\n' in text
    assert '"scale" has shape (3,) in the state dict, (2,) in the module' in text
    assert '"first.weight" must be a Tensor, not list' in text
    del state["scale"], state["first.weight"]
    result = net.load_state_dict(state, strict=False)
    assert set(result.missing_keys) == {"first.bias", "first.weight", "norm.running_var", "scale"}
    assert result.unexpected_keys == ["extra", "tail.0.weight"]
    with pytest.raises(TypeError, match="load_state_dict: expected a dict .* got list"):
        net.load_state_dict([1])


def test_load_with_assign():
    net = nn.Linear(2, 2)
    state = {"weight": gg.ones(2, 2, dtype=gg.float64), "bias": gg.zeros(2, dtype=gg.float64)}
    net.load_state_dict(state, assign=True)
    assert net.weight.dtype is gg.float64 and isinstance(net.weight, nn.Parameter) and net.weight.requires_grad


def test_extra_state_and_hooks_of_saving():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.count = 3

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    net = nn.Sequential(Counting())
    state = net.state_dict()
    assert state == {"0._extra_state": {"count": 3}}
    net[0].count = 9
    net.load_state_dict(state)
    assert net[0].count == 3
    with pytest.raises(RuntimeError, match="_extra_state"):
        net.load_state_dict({})
    net.register_state_dict_post_hook(lambda m, s, prefix, metadata: s.clear())
    assert net.state_dict() == {}
    net.register_load_state_dict_pre_hook(lambda m, s, *rest: s.update(state))
    net.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
    net.load_state_dict({})


# -- hooks ------------------------------------------------------------------------------------------
def test_forward_hooks(device):
    layer = nn.Linear(2, 2).to(device)
    x = gg.ones(1, 2, device=device)
    plain = layer(x).detach().cpu().numpy()
    log = []
    a = layer.register_forward_pre_hook(lambda m, args: log.append("pre") or (args[0] * 2,))
    b = layer.register_forward_hook(lambda m, args, out: log.append("post") or out * 10)
    c = layer.register_forward_hook(lambda m, args, kwargs, out: log.append("first"), prepend=True, with_kwargs=True)
    with gg.no_grad():
        layer.bias.zero_()
        plain = layer.forward(x).cpu().numpy()
    np.testing.assert_allclose(layer(x).detach().cpu().numpy(), plain * 20, rtol=1e-6)
    assert log == ["pre", "first", "post"]
    for handle in (a, b, c):
        handle.remove()
    np.testing.assert_array_equal(layer(x).detach().cpu().numpy(), plain)


def test_forward_hook_that_always_runs():
    layer = nn.Linear(2, 2)
    seen = []
    layer.register_forward_hook(lambda m, args, out: seen.append(out), always_call=True)
    with pytest.raises(RuntimeError):
        layer(gg.ones(3))
    assert seen == [None]


def test_full_backward_hooks(device):
    layer = nn.Linear(2, 3).to(device)
    seen = {}

    def hook(module, grad_input, grad_output):
        seen["input"], seen["output"] = grad_input[0], grad_output[0]
        return (grad_input[0] * 10,)

    layer.register_full_backward_hook(hook)
    layer.register_full_backward_pre_hook(lambda module, grad_output: (grad_output[0] * 2,))
    x = gg.ones(4, 2, device=device, requires_grad=True)
    layer(x).sum().backward()
    assert seen["output"].shape == (4, 3) and (seen["output"] == 2).all().item()
    expected = 2 * layer.weight.detach().sum(0).expand(4, 2)
    np.testing.assert_allclose(seen["input"].cpu().numpy(), expected.cpu().numpy(), rtol=1e-6)
    np.testing.assert_allclose(x.grad.cpu().numpy(), 10 * expected.cpu().numpy(), rtol=1e-6)
    assert (layer.bias.grad == 8).all().item()


def test_full_backward_hook_without_gradient_of_the_input():
    layer = nn.Linear(2, 3)
    seen = []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go[0].shape)))
    layer(gg.ones(4, 2)).sum().backward()
    assert seen == [((None,), (4, 3))]


# -- containers --------------------------------------------------------------------------------------
def test_sequential():
    s = nn.Sequential(OrderedDict(a=nn.Linear(2, 3), b=nn.ReLU()))
    assert s.a is s[0] and s[-1] is s.b and len(s) == 2
    assert [n for n, _ in s[:1].named_children()] == ["a"]
    t = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Tanh())
    t.insert(1, nn.Sigmoid()).append(nn.GELU()).extend([nn.SiLU()])
    assert [type(m).__name__ for m in t] == ["Linear", "Sigmoid", "ReLU", "Tanh", "GELU", "SiLU"]
    assert type(t.pop(0)).__name__ == "Linear"
    del t[1:3]
    assert list(t._modules) == ["0", "1", "2"]
    t[0] = nn.Identity()
    assert isinstance(t[0], nn.Identity) and len(t + t) == 6 and len(2 * t) == 6
    with pytest.raises(IndexError, match="index 7 is out of range"):
        t[7]
    with pytest.raises(TypeError, match="'3' must be a Module or None, not int"):
        t.append(3)


def test_module_list_and_dict():
    ms = nn.ModuleList(nn.Linear(i + 1, 1) for i in range(3))
    assert len(ms) == 3 and ms[-1].in_features == 3 and len(ms[1:]) == 2
    ms += [nn.Linear(9, 1)]
    ms.insert(0, nn.Linear(8, 1))
    assert [m.in_features for m in ms] == [8, 1, 2, 3, 9]
    del ms[1]
    assert [n for n, _ in ms.named_parameters()][2] == "1.weight" and ms.pop().in_features == 9
    d = nn.ModuleDict({"a": nn.ReLU()})
    d["b"] = nn.Linear(1, 1)
    d.update([("c", nn.Tanh())])
    assert list(d) == ["a", "b", "c"] and "b" in d and len(list(d.parameters())) == 2
    assert isinstance(d.pop("a"), nn.ReLU) and list(d.keys()) == ["b", "c"]
    d.clear()
    assert len(d) == 0


def test_parameter_list_and_dict():
    ps = nn.ParameterList([gg.ones(2), nn.Parameter(gg.zeros(3))])
    ps.append(gg.ones(1))
    ps += [gg.ones(4)]
    assert len(ps) == 4 and all(isinstance(p, nn.Parameter) for p in ps) and ps[-1].shape == (4,)
    assert [n for n, _ in ps.named_parameters()] == ["0", "1", "2", "3"]
    ps[0] = gg.zeros(5)
    assert ps[0].shape == (5,) and len(ps[1:3]) == 2
    d = nn.ParameterDict({"w": gg.ones(2)})
    d["b"] = gg.zeros(1)
    assert list(d.keys()) == ["w", "b"] and len(list(d.parameters())) == 2
    assert d.get("none") is None and d.pop("w").shape == (2,) and "w" not in d
    assert "Parameter containing" in repr(ps) and "(b): Parameter" in repr(d)


# -- utils ---------------------------------------------------------------------------------------------
def test_clip_grad_norm(device):
    ps = [nn.Parameter(gg.zeros(2, device=device)), nn.Parameter(gg.zeros(1, device=device)), nn.Parameter(gg.zeros(1))]
    ps[0].grad, ps[1].grad = gg.tensor([3.0, 0.0], device=device), gg.tensor([-4.0], device=device)
    assert abs(nn.utils.clip_grad_norm_(ps, 10.0).item() - 5.0) < 1e-5
    assert ps[1].grad.tolist() == [-4.0]
    nn.utils.clip_grad_norm_(ps, 1.0)
    np.testing.assert_allclose([*ps[0].grad.tolist(), *ps[1].grad.tolist()], [0.6, 0, -0.8], rtol=1e-5)
    assert abs(nn.utils.get_total_norm([p.grad for p in ps[:2]], float("inf")).item() - 0.8) < 1e-5
    nn.utils.clip_grad_value_(ps, 0.5)
    np.testing.assert_allclose([*ps[0].grad.tolist(), *ps[1].grad.tolist()], [0.5, 0, -0.5])
    ps[0].grad.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_(ps, 1.0, error_if_nonfinite=True)


def test_parameters_to_vector_and_back(device):
    net = Net().to(device)
    vector = nn.utils.parameters_to_vector(net.parameters())
    assert vector.shape == (sum(p.numel() for p in net.parameters()),)
    other = Net().to(device)
    nn.utils.vector_to_parameters(vector.detach(), other.parameters())
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach().cpu().numpy(), b.detach().cpu().numpy())
        assert b.is_leaf and b.requires_grad
    with pytest.raises(ValueError, match="3 elements"):
        nn.utils.vector_to_parameters(gg.ones(3), net.parameters())
