"""Programs written for PyTorch run unchanged: the losses of each step agree with PyTorch's."""

from __future__ import annotations

import builtins
import importlib
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg

PROGRAMS = sorted(p for p in (Path(__file__).parent / "programs").glob("*.py") if p.name != "__init__.py")


def load(path, library):
    """The names a program defines, with ``library`` standing where it imports ``torch``."""

    def import_(name, globals=None, locals=None, fromlist=(), level=0):
        if level == 0 and name.split(".")[0] == "torch":
            module = importlib.import_module(library + name.removeprefix("torch"))
            return module if fromlist else importlib.import_module(library)
        return builtins.__import__(name, globals, locals, fromlist, level)

    module = types.ModuleType(f"tests.programs.{path.stem}_{library}")
    module.__dict__["__builtins__"] = vars(builtins) | {"__import__": import_}
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    return module


def modules_of(model):
    return model if isinstance(model, dict) else {"": model}


def run(path, library, device, weights):
    program = load(path, library)
    model = program.build()
    parts = modules_of(model)
    if weights is None:
        weights = {k: {n: v.numpy().copy() for n, v in m.state_dict().items()} for k, m in parts.items()}
    else:
        for k, m in parts.items():
            m.load_state_dict({n: gg.tensor(v) for n, v in weights[k].items()})
    return list(program.train(model, device)), weights


@pytest.fixture(scope="module")
def expected():
    """path -> (losses, initial weights) of PyTorch, computed once."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    done = {}

    def get(path):
        if path not in done:
            torch.manual_seed(0)
            done[path] = run(path, "torch", "cpu", None)
        return done[path]

    return get


@pytest.mark.filterwarnings("ignore:.*through the host.*")
@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in PROGRAMS])
def test_program(path, device, expected):
    want, weights = expected(path)
    got, _ = run(path, "gpugrad", device, weights)
    assert len(want) >= 20 and all(math.isfinite(x) for x in want)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in PROGRAMS])
def test_learns(path):
    """Without PyTorch: from gpugrad's own initial weights the loss is finite, and moves."""
    gg.manual_seed(0)
    losses, _ = run(path, "gpugrad", "cpu", None)
    assert all(math.isfinite(x) for x in losses) and len(set(losses)) > 10
