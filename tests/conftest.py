"""Devices to test on, and fixtures.

``--device cpu,opencl`` picks devices; without it every device present is used, the pretend
device of tests/pretend.py included. A ``device`` fixture repeats a test on each.
"""

from __future__ import annotations

import os
import tempfile

import numpy as np
import pytest

import gpugrad as gg
from tests import launches, poison, pretend
from tests.gpt_runs import gpt_examples, tokenizer  # noqa: F401  (fixtures)

pretend.register()
poison.configure()
launches.configure()


def pytest_addoption(parser):
    parser.addoption(
        "--device", default="all", help="comma-separated device types to test on, or 'all' (those present)"
    )


def _present() -> list[str]:
    return [kind for kind in ("cpu", "opencl", "cuda", "pretend") if gg.is_available(kind)]


def _chosen(config) -> list[str]:
    asked = config.getoption("--device")
    if asked == "all":
        if not hasattr(config, "_gpugrad_devices"):
            config._gpugrad_devices = _present()
        return config._gpugrad_devices
    return asked.split(",")


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", _chosen(metafunc.config))


def pytest_report_header(config):
    present = {str(d): info.name for d, info in gg.devices()}
    return [f"gpugrad devices: {present}", f"tested on: {', '.join(_chosen(config))}"]


@pytest.fixture(autouse=True)
def _seeded():
    gg.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def torch():
    """PyTorch, where the extra ``parity`` is installed."""
    return pytest.importorskip("torch")


def pytest_configure(config):
    os.environ.setdefault("GPUGRAD_TUNE", "0")  # which kernel computes does not depend on how busy the machine is
    # The compile cache of PoCL belongs to this run's user, not to whoever ran before.
    os.environ.setdefault("POCL_CACHE_DIR", os.path.join(tempfile.gettempdir(), f"gpugrad-pocl-cache-{os.getuid()}"))
    # Devices without factorizations of their own say so once; tests/test_linalg.py checks that they do.
    config.addinivalue_line("filterwarnings", "ignore::gpugrad.errors.HostTripWarning")


def pytest_sessionfinish(session):
    launches.finish()
