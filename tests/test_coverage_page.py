"""docs/pytorch_coverage.md says what there is: names it lists can be had, names it calls absent cannot."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import gpugrad
from gpugrad.absent import REASONS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "pytorch_coverage.md"
NAME = re.compile(r"`([A-Za-z_]\w*)`")


def space(path: str) -> Any:
    """The module or class that PyTorch's dotted ``path`` is here."""
    if path.endswith(".Tensor"):
        return gpugrad.Tensor
    return importlib.import_module(path.replace("torch", "gpugrad", 1))


def sections() -> dict[str, str]:
    """PyTorch's namespace -> its text on the page."""
    parts = re.split(r"^## (torch[\w.]*)$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_each_name_on_the_page_is_as_it_says():
    counts = dict(re.findall(r"^\| \[`(torch[\w.]*)`\].* \| (\d+) \|$", PAGE.read_text(encoding="utf-8"), re.M))
    assert set(counts) == set(sections())
    for path, text in sections().items():
        ours = space(path)
        before, listed = text.split("<details>")
        here = NAME.findall(listed)
        assert len(set(here)) == len(here) == int(counts[path]), path
        assert not [name for name in here if not hasattr(ours, name)], path
        absent = before.partition("| absent |")[2]
        gone = [name for line in absent.splitlines() for name in NAME.findall(line.split(" | ")[0])]
        assert not [name for name in gone if hasattr(ours, name)], path
        different = [name for name in NAME.findall(before.partition("| absent |")[0]) if f"\n| `{name}` |" in before]
        assert set(different) <= set(here), path


def test_reasons_are_given_for_what_is_absent_only():
    for name in REASONS:
        path, _, last = name.rpartition(".")
        ours = space(f"torch.{path}" if path else "torch")
        assert not hasattr(ours, last), f"{name} exists: take it out of gpugrad/absent.py"


@pytest.mark.parametrize("name", ["fft", "sparse_coo_tensor", "jit", "complex64", "onnx"])
def test_the_error_says_the_reason(name):
    with pytest.raises(AttributeError, match=re.escape(f"gpugrad has no {name}: {REASONS[name]}")):
        getattr(gpugrad, name)


def test_the_page_is_up_to_date():
    pytest.importorskip("torch", reason="the page is compared with PyTorch's own names (extra 'parity')")
    from tools.pytorch_coverage import page

    assert PAGE.read_text(encoding="utf-8") == page(), "run python tools/pytorch_coverage.py"


@pytest.mark.parametrize("path", ["cuda.Event", "func.functionalize", "func.linearize", "utils.data.IterDataPipe"])
def test_modules_say_the_reason_too(path):
    module, _, name = path.rpartition(".")
    with pytest.raises(AttributeError, match=re.escape(f"no attribute '{name}': {REASONS[path]}")):
        getattr(space(f"torch.{module}"), name)


@pytest.mark.parametrize("name", ["to_sparse", "stft", "int_repr", "cfloat"])
def test_tensors_say_the_reason_too(name):
    with pytest.raises(
        AttributeError, match=re.escape(f"'Parameter' object has no attribute '{name}': {REASONS[name]}")
    ):
        getattr(gpugrad.nn.Parameter(gpugrad.ones(2)), name)
    assert not hasattr(gpugrad.ones(2), "nonsense")
