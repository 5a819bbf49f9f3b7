"""Where the time goes: every operation with the time its device took, the bytes it moved and the FLOPs it did.

    with gg.profile() as p:
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
    print(p)
    p.export_chrome_trace("step.json")

Names are ``torch.profiler``'s. Off, the profiler costs nothing: ``recording.py`` says what it replaces while it is on.
What counts as bytes and FLOPs is in ``costs.py``.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from time import perf_counter_ns, time_ns
from typing import Any

from gpugrad.profiler.peaks import Peak, peak
from gpugrad.profiler.recording import Event, Range, record_function, recorder
from gpugrad.profiler.report import Average, Averages, averages, write_trace

__all__ = [
    "Average",
    "Averages",
    "Event",
    "EventList",
    "Peak",
    "ProfilerAction",
    "ProfilerActivity",
    "Range",
    "peak",
    "profile",
    "record_function",
    "schedule",
    "supported_activities",
    "tensorboard_trace_handler",
]


class ProfilerActivity(Enum):
    """What to record: ``CPU`` every operation this program calls, on whatever device; ``CUDA``, ``OPENCL`` alone only
    those on such devices. The device's time is always measured."""

    CPU = "cpu"
    CUDA = "cuda"
    OPENCL = "opencl"


def supported_activities() -> set[ProfilerActivity]:
    """All of them."""
    return set(ProfilerActivity)


class ProfilerAction(Enum):
    """What a :func:`schedule` says to do in a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


_RECORDING = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0, skip_first_wait: int = 0
) -> Callable[[int], ProfilerAction]:
    """After ``skip_first`` steps, cycles of ``wait`` steps without recording, ``warmup`` ones too, and ``active`` ones
    that are recorded; ``repeat`` cycles, 0 for no end. With ``skip_first_wait`` the first cycle does not wait.

    The result is for ``profile(schedule=...)``. Raises ValueError for negative numbers or no active step."""
    if min(wait, warmup, repeat, skip_first, skip_first_wait) < 0 or active < 1:
        raise ValueError(
            f"schedule: wait={wait}, warmup={warmup}, repeat={repeat}, skip_first={skip_first} and "
            f"skip_first_wait={skip_first_wait} must not be negative, and active={active} at least 1"
        )
    length = wait + warmup + active

    def action(step: int) -> ProfilerAction:
        step -= skip_first
        if step < 0:
            return ProfilerAction.NONE
        if skip_first_wait:
            step += wait
        if repeat and step >= repeat * length:
            return ProfilerAction.NONE
        at = step % length
        if at < wait:
            return ProfilerAction.NONE
        if at < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD if at < length - 1 else ProfilerAction.RECORD_AND_SAVE

    return action


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False, use_python_export: bool = False
) -> Callable[[profile], None]:
    """For ``profile(on_trace_ready=...)``: writes each trace into the folder ``dir_name``, in a file named after the
    worker (default: host and process) and the time."""

    def write(prof: profile) -> None:
        folder = Path(dir_name)
        folder.mkdir(parents=True, exist_ok=True)
        name = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        prof.export_chrome_trace(folder / f"{name}.{time_ns()}.pt.trace.json{'.gz' if use_gzip else ''}")

    return write


class EventList(list[Event]):
    """The events of a profile in the order of the calls. Calling it gives it again: PyTorch's ``prof.events()``."""

    def __init__(self, events: Iterable[Event], owner: profile) -> None:
        super().__init__(events)
        self._owner = owner

    def __call__(self) -> EventList:
        return self

    def key_averages(self, group_by_input_shapes: bool = False) -> Averages:
        """:meth:`profile.key_averages`."""
        return self._owner.key_averages(group_by_input_shapes)

    def table(self, sort_by: str | None = None, row_limit: int = 100, **options: Any) -> str:
        """:meth:`Averages.table`."""
        return self.key_averages().table(sort_by, row_limit, **options)

    def total_average(self) -> Average:
        """All events as one row."""
        return self.key_averages().total_average()

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of the host in all operations."""
        return sum(e.cpu_time for e in self)

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """:meth:`profile.export_chrome_trace`."""
        self._owner.export_chrome_trace(path)


#: arguments of torch.profiler.profile without an equivalent -> what to do instead
_ABSENT = {
    "profile_memory": "gpugrad.memory_stats() tells what is allocated now and at most",
    "with_stack": "wrap the lines in question in record_function(name)",
    "with_modules": "wrap the modules in question in record_function(name)",
    "experimental_config": "there is nothing to configure",
    "execution_trace_observer": "export_chrome_trace(path) writes what was executed",
    "custom_trace_id_callback": "on_trace_ready is called with the profile and may name the file",
    "post_processing_timeout_s": "reading the events takes no longer than the work that is still queued",
}


class profile:
    """Records every operation while it is on: as a context manager, or between :meth:`start` and :meth:`stop`.

    ``activities``: see :class:`ProfilerActivity`; everything unless given. ``schedule``: which steps to record, a step
    ending with :meth:`step`; ``on_trace_ready(profile)`` is called whenever a recording is complete; ``acc_events``:
    keep the events of earlier cycles. Shapes and FLOPs are always recorded. Several profiles may be on, one inside the
    other too; each records what all threads do.

    ``str()`` of it is :meth:`table`. Raises NotImplementedError for what is not recorded here, ValueError for an empty
    list of activities."""

    def __init__(
        self,
        *,
        activities: Iterable[ProfilerActivity] | None = None,
        schedule: Callable[[int], ProfilerAction] | None = None,
        on_trace_ready: Callable[[profile], Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        with_modules: bool = False,
        experimental_config: Any = None,
        execution_trace_observer: Any = None,
        acc_events: bool = False,
        use_cuda: bool | None = None,
        custom_trace_id_callback: Any = None,
        post_processing_timeout_s: float | None = None,
    ) -> None:
        given = locals()
        for name, instead in _ABSENT.items():
            if given[name]:
                raise NotImplementedError(f"profile: there is no {name} here; {instead}")
        wanted = set(ProfilerActivity) if activities is None else {ProfilerActivity(a) for a in activities}
        if not wanted:
            raise ValueError("profile: activities is empty; leave it out to record everything")
        self._kinds = None if ProfilerActivity.CPU in wanted else {a.value for a in wanted}
        self._schedule = schedule
        self._on_trace_ready = on_trace_ready
        self._accumulate = acc_events
        self._recording = False
        self._action = ProfilerAction.NONE
        self.step_num = 0
        self._step_began = 0
        self._events: list[Event] = []
        self._ranges: list[Range] = []
        self._origin = 0
        self._wall_ns = 0
        self._metadata: dict[str, Any] = {}

    # -- on and off --------------------------------------------------------------------------
    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin. Raises RuntimeError if it is on already."""
        if self._recording or self._action is not ProfilerAction.NONE:
            raise RuntimeError("profile: this profile is on already; make another one to nest them")
        self._events, self._ranges, self._wall_ns, self.step_num = [], [], 0, 0
        self._action = self._planned(0)
        self._step_began = perf_counter_ns()
        if self._action in _RECORDING:
            self._begin()

    def stop(self) -> None:
        """End; waits for the devices' work. Off already: nothing happens."""
        was, self._action = self._action, ProfilerAction.NONE
        self._note_step()
        if was in _RECORDING:
            self._end()
            self._ready()

    def step(self) -> None:
        """The next step of the schedule begins."""
        self._note_step()
        was, self.step_num = self._action, self.step_num + 1
        self._action = self._planned(self.step_num)
        ends = was is ProfilerAction.RECORD_AND_SAVE or (was in _RECORDING and self._action not in _RECORDING)
        if ends and self._recording:
            self._end()
            if self._schedule is not None:
                self._ready()
        if self._action in _RECORDING and not self._recording:
            self._begin()

    def _planned(self, step: int) -> ProfilerAction:
        return ProfilerAction.RECORD if self._schedule is None else self._schedule(step)

    def _note_step(self) -> None:
        now = perf_counter_ns()
        if self._schedule is not None and self._recording:
            self._take(Range(f"ProfilerStep#{self.step_num}", self._step_began, now))
        self._step_began = now

    def _begin(self) -> None:
        if not self._accumulate:
            self._events, self._ranges, self._wall_ns = [], [], 0
        recorder.add(self._take)
        self._recording = True
        self._step_began = self._began = perf_counter_ns()
        if not self._events:
            self._origin = self._began

    def _end(self) -> None:
        ended = perf_counter_ns()
        self._recording = False
        recorder.remove(self._take)
        last = max((end for e in self._events for _, end in e.spans_ns), default=0)
        self._wall_ns += max(ended, last) - self._began

    def _ready(self) -> None:
        if self._on_trace_ready is not None:
            self._on_trace_ready(self)

    def _take(self, what: Event | Range) -> None:
        if isinstance(what, Range):
            self._ranges.append(what)
        elif self._kinds is None or what.device.type in self._kinds:
            self._events.append(what)

    # -- what was recorded --------------------------------------------------------------------
    @property
    def events(self) -> EventList:
        """One :class:`Event` for each call of an operation; ``events()`` works too."""
        return EventList(self._events, self)

    @property
    def ranges(self) -> list[Range]:
        """One :class:`Range` for each pass through a ``record_function`` block."""
        return list(self._ranges)

    @property
    def wall_time(self) -> float:
        """Microseconds from the start to the end of the last work."""
        return (self._wall_ns or perf_counter_ns() - self._origin) / 1e3

    def key_averages(
        self, group_by_input_shape: bool = False, group_by_stack_n: int = 0, group_by_overload_name: bool = False
    ) -> Averages:
        """The events added up by operation and device, and by shapes if asked. Raises NotImplementedError for
        ``group_by_stack_n``: no call stacks are recorded."""
        if group_by_stack_n:
            raise NotImplementedError(f"key_averages: there is no group_by_stack_n here; {_ABSENT['with_stack']}")
        return averages(list(self._events), list(self._ranges), group_by_input_shape, self._wall_ns or None)

    def table(self, sort_by: str | None = None, row_limit: int = 100, **options: Any) -> str:
        """:meth:`Averages.table` of :meth:`key_averages`."""
        return self.key_averages().table(sort_by, row_limit, **options)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"<gpugrad.profile: {len(self._events)} events{', on' if self._recording else ''}>"

    def add_metadata(self, key: str, value: str) -> None:
        """Put a remark into the traces written from now on."""
        self._metadata[key] = value

    def add_metadata_json(self, key: str, value: str) -> None:
        """As :meth:`add_metadata`, with a value in JSON. Raises ValueError if it is none."""
        self._metadata[key] = json.loads(value)

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write JSON for chrome://tracing or ui.perfetto.dev, compressed if ``path`` ends in ".gz"; never half a file.
        Raises OSError where it cannot be written."""
        about = {"producer": "gpugrad", "process": os.getpid()} | self._metadata
        write_trace(path, list(self._events), list(self._ranges), self._origin, about)
