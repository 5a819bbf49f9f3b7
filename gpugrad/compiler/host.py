"""Programs on the CPU: groups as C, built by the system's C compiler, and one Python function that calls them.

Consecutive groups become one C function, a *segment*, so that a small program is one call. Groups with much work are
calls of their own, shared out among the backend's threads. What is left, large matrix products and calls that only the
backend can do, stands between them in a Python function that is generated for the program: its views of the program's
own memory are made once.

Where a buffer lies:

* the program's own ones in one piece of memory, the arena (``memory.py``); small results too, which are copied out;
* large results in memory made anew for each run, large arguments where they are: their address is looked up each time;
* small arguments are copied into the arena, which is quicker than asking an array for its address;
* what a call of the backend returns stays where it is, or is copied if it is small and read by C code.

Without a C compiler ``blocks.py`` computes groups by NumPy.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.backends import host_build
from gpugrad.backends.cpu import _quiet
from gpugrad.compiler import blocks
from gpugrad.compiler.host_places import RANGES, Places, is_product
from gpugrad.compiler.lowering import Action, Lowering
from gpugrad.compiler.program import Buffer, Call, Fill, Map, Number, Program, Reduce, Step, View
from gpugrad.compiler.serial_text import Kernel

_CONVOLUTIONS = {"convolve": 1, "convolve_input_grad": 1, "convolve_weight_grad": 2}  # which argument knows the kernel
_POOLS = ("max_pool", "max_pool_grad")
#: elements up to which a segment keeps the interpreter lock: letting go of it and taking it again costs more
QUICK = 1 << 14


class HostLowering(Lowering):
    """A program on the CPU backend."""

    def __init__(self, program: Program) -> None:
        self._text = ""
        self._compiled = host_build.compiler() is not None
        super().__init__(program)

    def prepare(self) -> list[Action]:
        if not self._compiled:
            return blocks.prepare(self)
        try:
            self._write(frozenset())
        except host_build.BuildError as error:
            warnings.warn(f"{error}\nThe program runs by NumPy instead, more slowly.", RuntimeWarning, stacklevel=2)
            self._compiled = False
            return blocks.prepare(self)
        return []

    def _write(self, in_place: frozenset[int]) -> None:
        """Make the function that runs the program; the arguments at the positions ``in_place`` are not copied."""
        writer = _Writer(self, in_place)
        run = writer.write()
        self._text = writer.readable
        self._go: Callable[[Sequence[Any], Sequence[float]], list[Any]] = run
        if writer.copied:
            self._go = self._first(writer, run)

    def _first(self, writer: _Writer, run: Any) -> Any:
        """The first run: arguments that are to be copied show what they are copied to."""

        def first(arguments: Sequence[Any], numbers: Sequence[float]) -> list[Any]:
            given = {b.position: arguments[b.position] for b in writer.copied}
            low = [p for p, a in given.items() if layout.byte_range(a.shape, a.strides, a.itemsize)[0] < 0]
            if low:  # elements lie before the first one
                self._write(frozenset(low))
            else:
                writer.copy_to(given)
                self._go = run
            return self._go(arguments, numbers)

        return first

    def run(self, arguments: Sequence[Any], numbers: Sequence[float]) -> list[Any]:
        if not self._compiled:
            return super().run(arguments, numbers)
        return self._go(arguments, numbers)

    def source(self) -> str:
        return self._text if self._compiled else super().source()


class _Writer(Places):
    """Writes the C text and the Python function of a program."""

    def __init__(self, lowering: HostLowering, in_place: frozenset[int]) -> None:
        super().__init__(lowering.program, lowering.parts, in_place)
        self.pointers: dict[int, int] = {}  # buffer number -> place in the table of pointers; 0 is the arena
        self.names: dict[str, Any] = {}
        self.python: list[str] = []
        self.functions: list[str] = []  # C functions that Python calls
        self.segment: list[str] = []
        self.large: list[tuple[int, list[str]]] = []  # place in functions, calls of a batch
        self.large_names: list[str] = []
        self.bound: list[str] = []  # names of C functions in the library
        self.quick: set[str] = set()  # those that are over soon
        self.work = 0  # of the segment that is being written
        self._views: dict[Any, str] = {}

    # -- names in the generated function -------------------------------------------------------------------
    def _constant(self, value: Any) -> str:
        if value is None or isinstance(value, bool):
            return repr(value)
        name = f"c{len(self.names)}"
        self.names[name] = value
        return name

    def _slot(self, b: Buffer) -> np.ndarray:
        """The memory of a buffer in the arena, as elements in a row."""
        size = max(b.nbytes // b.dtype.itemsize, 1)
        return np.ndarray((size,), b.dtype, self.space, self.base + self.slots[b.number])

    def _fixed(self, b: Buffer) -> np.ndarray | None:
        """An array over the buffer's memory, if that is the same in each run."""
        if b.number in self.slots:
            return self._slot(b)
        return b.array if b.role == "outside" else None

    def _view(self, v: View) -> str:
        """An expression for the array of ``v``."""
        key = (v.buffer.number, v.offset, v.shape, v.strides)
        name = self._views.get(key)
        if name is not None:
            return name
        memory = self._fixed(v.buffer)
        if memory is not None and v.buffer not in self.copied:
            name = self._views[key] = self._constant(_view(self.backend, memory, v.shape, v.strides, v.offset))
            return name
        if v.buffer.role == "argument":
            whole = f"arguments[{v.buffer.position}]"
        else:
            whole = f"m{v.buffer.number}"
        parts = f"{whole}, {self._constant(v.shape)}, {self._constant(v.strides)}, {v.offset}"
        return f"view(backend, {parts})"

    def _expression(self, x: Any) -> str:
        """An argument of a call."""
        if isinstance(x, View):
            return self._view(x)
        if isinstance(x, Number):
            return f"numbers[{x.index}]"
        if type(x) in (list, tuple) and any(isinstance(e, (View, Number, list, tuple)) for e in x):
            inside = ", ".join(self._expression(e) for e in x)
            return f"[{inside}]" if isinstance(x, list) else f"({inside},)"
        return self._constant(x)

    # -- C ---------------------------------------------------------------------------------------------------
    def _address(self, b: Buffer, offset: int) -> str:
        """Where a buffer's byte is, in C."""
        if b.number in self.slots:
            place, offset = 0, offset + self.slots[b.number]
        else:
            place = self.pointers.setdefault(b.number, len(self.pointers) + 1)
        return f"p[{place}]" + (f" + {offset}" if offset > 0 else f" - {-offset}" if offset else "")

    def _arguments(self, i: int, kernel: Kernel, finish: bool, chunks: str, scratch: str = "") -> str:
        found = []
        for q in kernel.pointers:
            found.append(f"({'' if q.written else 'const '}S_{q.short} *)({self._address(q.buffer, q.offset)})")
        found += [f"n[{k}]" for k in kernel.numbers]
        if kernel.partial:
            found.append(f"p[0] + {self.extra[i, 'partial']}")
        if not finish:
            if kernel.scratch:
                found.append(f"p[0] + {self.extra[i, 'scratch']}{scratch}")
            if kernel.chunks > 1:
                found.append(chunks)
        return ", ".join(found)

    def _kernel(self, i: int, kernel: Kernel) -> None:
        end = f"    {kernel.name}_finish({self._arguments(i, kernel, True, '')});"
        if not self._is_large(kernel):
            self.segment.append(f"    {kernel.name}({self._arguments(i, kernel, False, f'0, {kernel.chunks}')});")
            self.work += kernel.work
            if kernel.finish:
                self.segment.append(end)
            return
        bounds = f"{kernel.chunks} * range / {RANGES}, {kernel.chunks} * (range + 1) / {RANGES}"
        call = f"    {kernel.name}({self._arguments(i, kernel, False, bounds, f' + range * {kernel.scratch}')});"
        if self.batch[i] == i:
            self._flush()
            # A place in the list of calls: more kernels of the batch may follow.
            self.large.append((len(self.functions), [call]))
            self.functions.append("")
            self.bound.append(f"gg_part_{i}")
            self.python.append(f"gg_part_{i}()")
            self.large_names.append(f"gg_part_{i}")
        else:
            self.large[-1][1].append(call)
        if kernel.finish:
            self.segment.append(end)

    def _flush(self) -> None:
        """End the segment, and call it."""
        if not self.segment:
            return
        name = f"gg_segment_{len(self.functions)}"
        body = "\n".join(self.segment)
        self.functions.append(f"KERNEL void {name}(char *const *p, const f64 *n) {{\n{body}\n}}\n")
        self.python.append(f"{name}()")
        self.bound.append(name)
        if self.work <= QUICK:
            self.quick.add(name)
        self.segment, self.work = [], 0

    # -- Python ------------------------------------------------------------------------------------------------
    def _bind(self, b: Buffer) -> None:
        """Tell C where a buffer is that lies elsewhere in each run."""
        if b in self.in_c:
            place = self.pointers.setdefault(b.number, len(self.pointers) + 1)
            whole = f"arguments[{b.position}]" if b.role == "argument" else f"m{b.number}"
            self.python.append(f"P[{place}] = address({whole})")

    def _step(self, step: Step) -> None:
        self._flush()
        add = self.python.append
        if isinstance(step, Map):
            inputs = ", ".join(self._expression(x) for x in step.inputs)
            kernel, compute, result = map(self._constant, (step.kernel, step.compute, step.out.dtype))
            if step.name == "cast":
                add(f"backend.copy({inputs}, None, {self._view(step.out)})")
            else:
                add(f"backend.map({kernel}, [{inputs}], {compute}, {result}, {self._view(step.out)})")
        elif isinstance(step, Reduce):
            arguments = ", ".join(map(self._constant, (step.axes, step.out.dtype)))
            value = f"backend.reduce({step.kind!r}, {self._view(step.input)}, {arguments})"
            add(f"backend.copy({value}, None, {self._view(step.out)})")
        elif isinstance(step, Fill):
            add(f"backend.fill({self._view(step.out)}, {self._expression(step.value)})")
        else:
            self._call(step)

    def _call(self, step: Call) -> None:
        if is_product(step):
            views = ", ".join(self._view(v) for v in (*step.args, step.results[0]))
            self.python.append(f"quiet.run(product, {views})")
            return
        arguments = [self._expression(x) for x in step.args]
        arguments += [f"{k}={self._expression(x)}" for k, x in step.kwargs.items()]
        if takes(step) and not step.kwargs:
            self.names[f"host_{step.method}"] = self.backend.host_kernels().call(step.method)
            call = f"host_{step.method}({', '.join(arguments)})"
        else:
            call = f"backend.{step.method}({', '.join(arguments)})"
        if not step.results:
            self.python.append(call)
            return
        names: list[str] = []
        after: list[Buffer] = []
        for k, v in enumerate(step.results):
            b = v.buffer
            if b in self.returned and b.number not in self.slots:
                names.append(f"m{b.number}")
                after.append(b)
            else:
                names.append(f"t{k}")
        self.python.append(f"{', '.join(names)}{'' if step.single else ','} = {call}")
        for name, v in zip(names, step.results, strict=True):
            if name[0] == "t":
                self.python.append(f"backend.copy({name}, None, {self._view(v)})")
        for buffer in after:
            self._bind(buffer)

    def _result(self, v: View, wholes: dict[int, str]) -> str:
        b = v.buffer
        if b.number not in self.slots or b in self.copied:
            return self._view(v)
        alone = sum(r.buffer is b for r in self.program.results) == 1
        if alone and not v.offset and v.dense and v.size * v.dtype.itemsize == b.nbytes:
            return f"{self._view(v)}.copy()"
        name = wholes.get(b.number)
        if name is None:
            name = wholes[b.number] = f"r{b.number}"
            self.python.append(f"{name} = {self._constant(self._slot(b))}.copy()")
        return f"view(backend, {name}, {self._constant(v.shape)}, {self._constant(v.strides)}, {v.offset})"

    def write(self) -> Callable[[Sequence[Any], Sequence[float]], list[Any]]:
        """The function that runs the program once."""
        add = self.python.append
        for b in self.copied:
            add(f"copyto(a{b.position}, arguments[{b.position}])")
        for b in self.first:
            if b.role == "argument" and b not in self.copied:
                self._bind(b)
        for b in self.made:
            shape = next((v.shape for v in self.program.results if v.buffer is b and not v.offset and v.dense
                          and v.size * v.dtype.itemsize == b.nbytes), (b.nbytes // b.dtype.itemsize,))  # fmt: skip
            add(f"m{b.number} = backend.empty({self._constant(shape)}, {self._constant(b.dtype)})")
            self._bind(b)
        for i, (kind, part) in enumerate(self.parts):
            if kind == "kernel":
                self._kernel(i, part)
            elif kind == "product":
                name, step = part
                t = f"{'f32' if step.args[0].dtype == np.float32 else 'f64'} *"
                left, right, out = (self._address(v.buffer, v.offset) for v in (*step.args, step.results[0]))
                self.segment.append(f"    {name}((const {t})({left}), (const {t})({right}), ({t})({out}));")
                self.work += step.results[0].size * step.args[0].shape[1] // 8
            else:
                self._step(part)
            for done in [b for b in self.returned if self.last.get(b) == i and b.number not in self.slots]:
                self._flush()
                add(f"m{done.number} = None")
        self._flush()
        for (place, calls), name in zip(self.large, self.large_names, strict=True):
            body = "\n".join(calls)
            self.functions[place] = f"KERNEL void {name}(char *const *p, const f64 *n, i64 range) {{\n{body}\n}}\n"
        wholes: dict[int, str] = {}
        results = [self._result(v, wholes) for v in self.program.results]
        add(f"return [{', '.join(results)}]")
        return self._function()

    def _function(self) -> Callable[[Sequence[Any], Sequence[float]], list[Any]]:
        prelude = "#define GG_FP64 1\n#define IDX i64\n" + self.unit.prelude("host") + _CONTRACT
        body = self.unit.kernels() + "\n" + "\n".join(self.functions)
        script = "\n    ".join(self.python)
        self.readable = "\n".join((self.unit.helpers(False), body, _commented(script)))
        names = self.names
        table = (ctypes.c_void_p * (len(self.pointers) + 1))()
        table[0] = self.space.__array_interface__["data"][0] + self.base
        for b in self.program.buffers:
            if b.number in self.pointers and b.role == "outside":
                table[self.pointers[b.number]] = b.array.__array_interface__["data"][0]
        numbers = 1 + max((k for kind, p in self.parts if kind == "kernel" for k in p.numbers), default=-1)
        values = (ctypes.c_double * max(numbers, 1))()
        if self.bound:
            free, held = host_build.load(prelude + self.unit.helpers() + body)
            for name in self.bound:
                if name.startswith("gg_part"):
                    names[name] = _shared(name, free, table, values, self.backend._workers.native())
                else:
                    names[name] = _bound(name, held if name in self.quick else free, table, values)
        lines = ["def run(arguments, numbers):", "    with lock:"]
        if numbers:
            lines.append(f"        N[:] = numbers[:{numbers}]")
        lines += [f"        {line}" for line in self.python]
        names.update(
            P=table, N=values, backend=self.backend, quiet=_quiet, copyto=np.copyto, view=_view, address=_address,
            product=self.backend._multiply, lock=threading.Lock(), space=self.space,
        )  # fmt: skip
        exec("\n".join(lines), names)  # the text is made of the names and numbers above
        run: Callable[[Sequence[Any], Sequence[float]], list[Any]] = names["run"]
        return run

    def copy_to(self, arguments: dict[int, np.ndarray]) -> None:
        """Give the copied arguments places of their shape and strides in the arena."""
        for b in self.copied:
            given = arguments[b.position]
            self.names[f"a{b.position}"] = _view(self.backend, self._slot(b), given.shape, given.strides, 0)


_CONTRACT = """
// Products may fuse a multiply and an add.
#ifdef __clang__
#define CONTRACT
#else
#define CONTRACT __attribute__((optimize("fp-contract=fast")))
#endif

"""


def takes(step: Call) -> bool:
    """Whether a call is one for kernels. Convolution with a kernel of one element is a bare product."""
    if step.method in _POOLS:
        return True
    at = _CONVOLUTIONS.get(step.method)
    if at is None:
        return False
    given = step.args[at]
    kernel = given.shape[2:] if isinstance(given, View) else given
    return any(k > 1 for k in kernel)


def _bound(name: str, library: Any, table: Any, values: Any) -> Callable[..., None]:
    """A function of the library with its first arguments."""
    function = getattr(library, name)
    function.restype = None
    addresses = ctypes.addressof(table), ctypes.addressof(values)
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    return functools.partial(function, *map(ctypes.c_void_p, addresses))


def _shared(name: str, library: Any, table: Any, values: Any, native: Any) -> Callable[..., None]:
    """A function of the library whose ranges the threads of ``native`` share out."""
    function = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    what = (ctypes.c_void_p * 3)(function, ctypes.addressof(table), ctypes.addressof(values))
    return functools.partial(native.gg_share_ranges, what, RANGES)


def _view(backend: Any, array: np.ndarray, shape: Sequence[int], strides: Sequence[int], offset: int) -> np.ndarray:
    if array.shape == shape and array.strides == strides and not offset:
        return array
    return backend.as_strided(array, shape, strides, offset)


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _commented(script: str) -> str:
    return "\n".join("// " + line for line in ("A run, in Python:", *script.splitlines())) + "\n"
