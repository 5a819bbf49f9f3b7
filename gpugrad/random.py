"""Random state: a seed and a count of the draws made.

Each random call takes the next *stream* of its generator; what it draws is a function of
(seed, stream, element index) and of nothing else, so a program draws the same numbers on
every device. Which bits those are: ``gpugrad/backends/philox.py``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpugrad import live


class Generator:
    """A source of random streams. Thread-safe.

    ``manual_seed(seed)`` restarts it; ``get_state()``/``set_state(state)`` save and restore
    it as ``(seed, draws)``. ``device`` is accepted as PyTorch's is and changes nothing:
    the numbers are the same on all devices."""

    def __init__(self, device: object = None) -> None:
        self._device = "cpu" if device is None else device
        self._lock = threading.Lock()
        self._seed = DEFAULT_SEED
        self._draws = 0

    @property
    def device(self) -> Any:
        """The device it was made for."""
        from gpugrad.devices import device

        return device(self._device)

    def manual_seed(self, seed: int) -> Generator:
        """Restart from ``seed`` (any int, taken modulo 2**64). Returns self."""
        _not_repeatable()
        with self._lock:
            self._seed = int(seed) % 2**64
            self._draws = 0
        return self

    def seed(self) -> int:
        """Restart from a seed of the operating system's entropy; returns it."""
        value = int.from_bytes(os.urandom(8), "little")
        self.manual_seed(value)
        return value

    def initial_seed(self) -> int:
        """The seed in force."""
        return self._seed

    def get_state(self) -> tuple[int, int]:
        """(seed, draws made since)."""
        _not_repeatable()
        with self._lock:
            return self._seed, self._draws

    def set_state(self, state: tuple[int, int]) -> None:
        """Continue from what :meth:`get_state` returned."""
        _not_repeatable()
        seed, draws = (int(v) for v in state)
        with self._lock:
            self._seed, self._draws = seed, draws

    def next_stream(self) -> tuple[int, int]:
        """(seed, stream) for one draw."""
        if live.recorder is not None:
            return live.recorder.live(self._advance)
        return self._advance()

    def _advance(self) -> tuple[int, int]:
        with self._lock:
            stream = self._draws
            self._draws += 1
            return self._seed, stream


def _not_repeatable() -> None:
    """A compiled step draws anew at each run, but repeats nothing else that is done with random states."""
    if live.recorder is not None:
        live.recorder.broken("reads or sets a state of random numbers")


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, **unused: Any) -> Iterator[None]:
    """Inside it random numbers are drawn as ever; afterwards the default generator goes on as if
    nothing had been drawn. ``devices`` and the rest are PyTorch's and change nothing."""
    state = default_generator.get_state()
    try:
        yield
    finally:
        if enabled:
            default_generator.set_state(state)


DEFAULT_SEED = 67280421310721
default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Restart the default generator, which all devices share. Returns it."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Restart the default generator from the operating system's entropy; returns the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The default generator's seed."""
    return default_generator.initial_seed()


def get_rng_state() -> tuple[int, int]:
    """State of the default generator: (seed, draws)."""
    return default_generator.get_state()


def set_rng_state(new_state: tuple[int, int]) -> None:
    """Restore what :func:`get_rng_state` returned."""
    default_generator.set_state(new_state)
