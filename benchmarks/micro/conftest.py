"""The devices to time, and how a call on a device that works in the background is timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gpugrad as gg

CALLS = 200  # of a sample, where the host's share of a call is asked for
RATES = pytest.StashKey[list[tuple[str, float, float]]]()  # benchmark, its bytes per second and those of a copy


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--device", default="cpu", help="comma-separated device types to time, or 'all' (those present)")


def pytest_generate_tests(metafunc: Any) -> None:
    if "device" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--device")
        present = [kind for kind in ("cpu", "opencl", "cuda") if gg.is_available(kind)]
        metafunc.parametrize("device", present if asked == "all" else asked.split(","))


@pytest.fixture
def per_call(benchmark: Any, device: str) -> Callable[[Callable[[], Any]], None]:
    """Times one call among many: what the program waits for before it can go on."""

    def run(call: Callable[[], Any]) -> None:
        benchmark.pedantic(call, rounds=15, iterations=CALLS, warmup_rounds=1)
        gg.synchronize(gg.device(device))

    return run


@pytest.fixture
def finished(benchmark: Any, device: str, request: Any) -> Callable[[Callable[[], Any], int], None]:
    """Times calls until their work is done; ``nbytes`` is what one reads and writes."""

    def run(call: Callable[[], Any], nbytes: int) -> None:
        def done() -> None:
            call()
            gg.synchronize(gg.device(device))

        benchmark.pedantic(done, rounds=9, iterations=1, warmup_rounds=2)
        if benchmark.stats is None:  # --benchmark-disable
            return
        rate, copy = nbytes / benchmark.stats.stats.median / 1e9, gg.profiler.peak(device).copy / 1e9
        benchmark.extra_info |= {"GB/s": rate, "copy GB/s": copy}
        request.config.stash.setdefault(RATES, []).append((request.node.name, rate, copy))

    return run


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """The rates, which pytest-benchmark's table has no column for."""
    rates = config.stash.get(RATES, [])
    if rates:
        terminalreporter.section("bytes per second")
    for name, rate, copy in sorted(rates, key=lambda r: r[1] / r[2]):
        terminalreporter.write_line(f"{name:44} {rate:8.1f} GB/s {rate / copy:6.0%} of a copy's {copy:.1f}")
