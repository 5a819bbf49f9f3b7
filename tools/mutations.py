"""Small changes of a module's source that ought to make a test fail: what ``tools/mutants.py`` applies one at a time.

A mutation changes a syntax tree, not a text: a comparison, an operator, a condition, a constant, a called function, a
dtype rule, C inside a string, or it leaves a statement out. Docstrings, annotations and what a row is tested on
(``samples``, ``domain``, ``dtypes``, ``reference``) are not touched: no test could notice, or it would change along.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib.abc
import importlib.util
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = Path(__file__).resolve().parent / "mutants_equivalent.toml"

_COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_BINARY = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
_CALLS = {
    "mul": "div", "div": "mul", "add": "sub", "sub": "add", "neg": "sign", "sin": "cos", "cos": "sin", "sinh": "cosh",
    "cosh": "sinh", "eq": "ne", "gt": "ge", "ge": "gt", "lt": "le", "le": "lt", "square": "neg", "rsqrt": "square",
    "logical_and": "logical_or", "logical_or": "logical_and", "exp": "neg", "log": "neg", "floor": "trunc",
    "trunc": "floor",
}  # fmt: skip
_C = (("+", "-"), ("- ", "+ "), ("*", "/"), ("/", "*"), (" < ", " <= "), (" > ", " >= "), ("==", "!="), ("&&", "||"))
_RULES = {"float": "promote", "number": "promote", "compare": "promote", "logical": "compare", "integer": "promote",
          "shift": "integer", "exponent": "promote", "count": "promote"}  # fmt: skip
_OF_TESTS = {"samples", "domain", "dtypes", "reference", "torch"}  # keywords of a row that only tests read


class Mutant(NamedTuple):
    """Number ``index`` of the mutations of ``file``; a negative one changes nothing."""

    file: str
    index: int
    line: int
    what: str

    def text(self) -> str:
        """The line it is on."""
        return (ROOT / self.file).read_text().splitlines()[self.line - 1].strip()

    def key(self) -> tuple[str, str, str, str]:
        """File, rows or function it is about, text of the line, change: what outlives other edits of the file."""
        return self.file, " ".join(sorted(rows_of(self.file, self.line))), self.text(), self.what


def mutants(file: str) -> list[Mutant]:
    """All of a file, in a fixed order; the second change of a kind on a line has ``#2`` after it."""
    found, before = [], Counter[tuple[int, str]]()
    for i, (line, what, _) in enumerate(mutations(_tree(file))):
        before[line, what] += 1
        times = before[line, what]
        found.append(Mutant(file, i, line, what if times == 1 else f"{what} #{times}"))
    return found


def mutated(file: str, index: int) -> ast.Module:
    """The tree of ``file`` with one mutation made."""
    tree = _tree(file)
    if index >= 0:
        list(mutations(tree))[index][2]()
    return ast.fix_missing_locations(tree)


def digest(file: str) -> str:
    """Of the file's contents: results of another version are not of this one."""
    return hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:16]


def equivalent() -> dict[tuple[str, str, str, str], str]:
    """:meth:`Mutant.key` of the mutants that no test can notice -> why."""
    listed = tomllib.loads(EQUIVALENT.read_text())["mutant"]
    return {(m["file"], m["about"], m["line"], m["what"]): m["why"] for m in listed}


def mutations(tree: ast.Module) -> Iterator[tuple[int, str, Callable[[], None]]]:
    """(line, description, what makes the change in ``tree``), in a fixed order."""
    left_alone = _left_alone(tree)
    for node in ast.walk(tree):
        if id(node) in left_alone:
            continue
        for what, change in _of_expressions(node):
            yield node.lineno, what, change  # type: ignore[attr-defined]
        yield from _of_statements(node)


def _of_expressions(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
        new = _COMPARE[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} -> {new.__name__}", _setter(node, "ops", [new(), *node.ops[1:]])
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        operator = _BINARY[type(node.op)]
        yield f"{type(node.op).__name__} -> {operator.__name__}", _setter(node, "op", operator())
    elif isinstance(node, ast.BoolOp):
        connective = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{type(node.op).__name__} -> {connective.__name__}", _setter(node, "op", connective())
    elif isinstance(node, (ast.If, ast.IfExp)):
        yield "if -> if not", _setter(node, "test", ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        called = _CALLS[node.func.id]
        yield f"{node.func.id} -> {called}", _setter(node.func, "id", called)
    elif isinstance(node, ast.keyword) and node.arg == "rule" and isinstance(node.value, ast.Constant):
        rule = _RULES[node.value.value]
        yield f"rule {node.value.value} -> {rule}", _setter(node.value, "value", rule)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} -> {not node.value}", _setter(node, "value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield f"{node.value} -> {node.value + 1}", _setter(node, "value", node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_c(node.value):
        for old, text in _C:
            if old in node.value:
                changed = node.value.replace(old, text, 1)
                yield f"C: {node.value} -> {changed}", _setter(node, "value", changed)


def _of_statements(node: ast.AST) -> Iterator[tuple[int, str, Callable[[], None]]]:
    """Statements with an effect elsewhere, left out (without other assignments the next line would only raise)."""
    for field in ("body", "orelse", "finalbody"):
        body = getattr(node, field, None)
        for i, statement in enumerate(body if isinstance(body, list) else ()):
            targets = statement.targets if isinstance(statement, ast.Assign) else ()
            calls = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
            changes = isinstance(statement, (ast.AugAssign, ast.Continue)) or any(
                isinstance(t, (ast.Attribute, ast.Subscript)) for t in targets
            )
            if calls or changes:
                gone = ast.copy_location(ast.Pass(), statement)
                yield statement.lineno, f"without: {ast.unparse(statement)[:60]}", _setter_at(body, i, gone)


def _setter(node: ast.AST, field: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(node, field, value)


def _setter_at(body: list[Any], place: int, value: Any) -> Callable[[], None]:
    return lambda: body.__setitem__(place, value)


def _left_alone(tree: ast.Module) -> set[int]:
    """The nodes of docstrings, annotations and what a row is tested on."""
    roots: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                roots.append(first.value)
        if isinstance(node, ast.FunctionDef):
            roots.append(node.returns)
        elif isinstance(node, (ast.arg, ast.AnnAssign)):
            roots.append(node.annotation)
        elif isinstance(node, ast.keyword) and node.arg in _OF_TESTS:
            roots.append(node.value)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("S", "Sample"):
            roots.append(node)
    return {id(inner) for root in roots if root is not None for inner in ast.walk(root)}


def _is_c(text: str) -> bool:
    return (
        bool(re.search(r"\b[abc]\b", text))
        and bool(re.search(r"[-+*/<>=&|]", text))
        and text.count(" ") < 40
        and (not re.search(r"[a-z]{3,} [a-z]{2,} [a-z]{2,}", text))
    )


_trees: dict[str, ast.Module] = {}


def _tree(file: str) -> ast.Module:
    if file not in _trees:
        _trees[file] = ast.parse((ROOT / file).read_text())
    return copy.deepcopy(_trees[file])


def rows_of(file: str, line: int) -> set[str]:
    """The rows of the ops table that a line is about: those of the statement it is in, else those that name what the
    statement defines, at any remove."""
    statements = _tree(file).body
    here = next((s for s in statements if s.lineno <= line <= (s.end_lineno or line)), None)
    if here is None:
        return set()
    found: set[str] = set()
    waiting, seen = [here], {id(here)}
    while waiting:
        statement = waiting.pop()
        rows = _rows_in(statement)
        defined = _defines(statement)
        found |= rows or {name.strip("_") for name in defined}  # of a file that is no table: what is defined
        if rows:
            continue
        for other in statements:
            if id(other) not in seen and defined & {n.id for n in ast.walk(other) if isinstance(n, ast.Name)}:
                seen.add(id(other))
                waiting.append(other)
    return found


def _rows_in(statement: ast.stmt) -> set[str]:
    calls = [n for n in ast.walk(statement) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "elementwise"]
    return {c.args[0].value for c in calls if isinstance(c.args[0], ast.Constant)}


def _defines(statement: ast.stmt) -> set[str]:
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {t.id if isinstance(t, ast.Name) else t.value.id for t in targets
            if isinstance(t, ast.Name) or (isinstance(t, ast.Attribute) and isinstance(t.value, ast.Name))}  # fmt: skip


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Hands the interpreter the module of a mutant."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.name = mutant.file.removesuffix(".py").replace("/", ".")
        self.path = str(ROOT / mutant.file)

    def find_spec(self, name: str, path: object, target: object = None) -> Any:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        exec(compile(mutated(self.mutant.file, self.mutant.index), self.path, "exec"), module.__dict__)
