"""Choosing among kernels that compute the same by trying them once on the device, and remembering the choice.

What is remembered lies in ``$GPUGRAD_CACHE/tuning`` (else the user's cache folder), one JSON file for each device,
driver and kernel texts, so that a new driver or a changed kernel starts afresh. A file that is damaged, or whose folder
cannot be written, costs only the time of trying again. Several processes may share it: each writes a whole file in
place of the old one, with what it found there.

Nothing is tried with ``GPUGRAD_TUNE=0``: then the first candidate is taken, which is what the shapes alone suggest.
Candidates must give the same bits, so that tuning never changes a result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from time import perf_counter

from gpugrad.backends import kernel_source
from gpugrad.backends.cached_files import cache_folder, private, store

logger = logging.getLogger("gpugrad")

_FORMAT = 1
_ROUNDS = 5
_SAMPLE = 2e-3  # seconds, about, of one measurement
_MARGIN = 0.9  # of the first candidate's time: what another one must stay below to be preferred


def rounded(n: int) -> int:
    """``n`` rounded up to a power of two or three quarters of one: sizes that share a choice."""
    if n <= 4:
        return n
    power = 1 << (n - 1).bit_length()
    return power * 3 // 4 if n <= power * 3 // 4 else power


class Tuner:
    """The choices of one device. ``identity`` says which: its name, driver and whatever else changes its kernels;
    ``texts`` are the files of kernels that are chosen among."""

    def __init__(self, identity: Sequence[str], texts: Sequence[str]) -> None:
        digest = hashlib.sha256()
        for part in (*identity, *(kernel_source.text(name) for name in texts)):
            digest.update(part.encode() + b"\0")
        self.enabled = os.environ.get("GPUGRAD_TUNE", "1") != "0"
        self.path = cache_folder() / "tuning" / f"{digest.hexdigest()[:32]}.json"
        self._identity = " / ".join(identity)
        self._choices: dict[str, str] | None = None
        self._lock = threading.RLock()

    def choose(self, key: str, candidates: Sequence[str], measure: Callable[[str, int], float]) -> str:
        """The best of ``candidates`` for ``key``. ``measure(candidate, n)`` does the work n times and returns the
        seconds; it is called only for a key that has not been seen on this device."""
        if len(candidates) == 1 or not self.enabled:
            return candidates[0]
        with self._lock:
            if self._choices is None:
                self._choices = self._read()
            choice = self._choices.get(key)
            if choice is None or choice not in candidates:
                choice = self._try(candidates, measure)
                logger.debug("gpugrad: %s: %s of %s for %s", self._identity, choice, ", ".join(candidates), key)
                self._choices[key] = choice
                self._write()
            return choice

    def _try(self, candidates: Sequence[str], measure: Callable[[str, int], float]) -> str:
        measure(candidates[0], 1)  # what the first call of a kernel costs more is not to be compared
        times = max(1, round(_SAMPLE / max(measure(candidates[0], 1), 1e-7)))
        for other in candidates[1:]:
            measure(other, 1)
        best = dict.fromkeys(candidates, float("inf"))
        for _ in range(_ROUNDS):
            for name in candidates:
                best[name] = min(best[name], measure(name, times))
        winner = min(candidates, key=best.__getitem__)
        return winner if best[winner] < _MARGIN * best[candidates[0]] else candidates[0]

    def _read(self) -> dict[str, str]:
        try:
            if not private(self.path):
                return {}
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            logger.info("gpugrad: what was tuned before is unreadable (%s), tuning again: %s", self.path, error)
            return {}
        choices = found.get("choices") if isinstance(found, dict) and found.get("format") == _FORMAT else None
        if not isinstance(choices, dict) or not all(isinstance(v, str) for v in choices.values()):
            logger.info("gpugrad: %s does not hold choices of kernels, tuning again", self.path)
            return {}
        return choices

    def _write(self) -> None:
        """Add our choices to those that another process may have written meanwhile."""
        assert self._choices is not None
        self._choices = self._read() | self._choices
        content = {"format": _FORMAT, "device": self._identity, "choices": dict(sorted(self._choices.items()))}
        store(self.path, (json.dumps(content, indent=1) + "\n").encode())


def stopwatch(finish: Callable[[], None], work: Callable[[], object], times: int) -> float:
    """Seconds that ``work`` takes a device ``times`` over; ``finish`` waits for it."""
    finish()
    start = perf_counter()
    for _ in range(times):
        work()
    finish()
    return perf_counter() - start
