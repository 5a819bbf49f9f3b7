"""The oldest versions that pyproject.toml allows are the ones that `make test-min` runs with."""

from __future__ import annotations

import importlib
import re
import tomllib
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _pins():
    text = (ROOT / "tools" / "minimum_versions.txt").read_text()
    return dict(re.findall(r"^([\w-]+)==([\d.]+)$", text, re.MULTILINE))


def _numbers(version):
    parts = [int(n) for n in version.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return parts


def _bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    stated = [*project["dependencies"], *extras["opencl"], *extras["test"]]
    return dict(m.groups() for line in stated if (m := re.match(r"([\w-]+)>=([\d.]+)", line)))


def test_pins_are_the_lower_bounds():
    pins, bounds = _pins(), _bounds()
    assert pins.keys() == bounds.keys()
    for name, bound in bounds.items():
        assert _numbers(pins[name]) == _numbers(bound), name


#: how gpugrad/backends/cuda.py calls CuPy's modules
ALIASES = {
    r"cupy": "cupy",
    r"_cupy\(\)": "cupy",
    r"self\._cuda": "cupy.cuda",
    r"runtime": "cupy.cuda.runtime",
    r"self\._runtime": "cupy.cuda.runtime",
    r"blas": "cupy.cuda.cublas",
}


def test_what_is_used_of_cupy_exists():
    """CuPy imports without a GPU: every name that gpugrad takes from it is there, in the version that is installed."""
    pytest.importorskip("cupy")
    text = (ROOT / "gpugrad" / "backends" / "cuda.py").read_text()
    seen = set()
    for alias, module in ALIASES.items():
        for path in re.findall(rf"(?<![\w.]){alias}\.([A-Za-z]\w*(?:\.[A-Za-z]\w*)*)", text):
            seen.add(f"{module}.{path}")
    assert "cupy.cuda.MemoryPool" in seen and len(seen) > 20
    missing = []
    for path in sorted(seen):
        found = importlib.import_module("cupy")
        for name in path.split(".")[1:]:
            try:
                known = hasattr(found, name)
            except ImportError:  # a library of CUDA's own that is not installed
                break
            if not known:
                missing.append(path)
                break
            found = getattr(found, name)
            if not isinstance(found, types.ModuleType):
                break  # attributes of objects are theirs
    assert not missing
