"""Drawn graphs: what is in them, that the texts are well formed, and what happens without Graphviz."""

import importlib.util
import re
import shutil
import stat
import sys
import xml.etree.ElementTree as ET

import pytest

import gpugrad as gg
from gpugrad import Value, nn, viz
from gpugrad.viz.drawing import Box, Drawing
from tests import gradients, test_ops

SVG = "{http://www.w3.org/2000/svg}"
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("graphviz") is None, reason="the Python package graphviz (extra 'viz') is not installed"
)
needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's program dot is not installed")


def boxes(source):
    """Number of a box -> its lines."""
    found = re.findall(r'^  n(\d+) \[label="((?:[^"\\]|\\.)*)", fillcolor="#[0-9a-f]{6}"\]$', source, re.M)
    return {int(i): [line.replace('\\"', '"') for line in label.split("\\l")[:-1]] for i, label in found}


def arrows(source):
    """Pairs of first lines, sorted."""
    names = {i: lines[0] for i, lines in boxes(source).items()}
    return sorted((names[int(a)], names[int(b)]) for a, b in re.findall(r"^  n(\d+) -> n(\d+)$", source, re.M))


def box(source, title):
    """The lines of the one box whose first line is ``title``."""
    found = [lines for lines in boxes(source).values() if lines[0] == title]
    assert len(found) == 1, f"{title}: {found} in {source}"
    return found[0]


@pytest.fixture
def without_dot(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


# -- tensors -------------------------------------------------------------------------


def test_names_shapes_values_and_gradients(device):
    w = gg.tensor([[1.0, 2.0], [3.0, 4.0]], device=device, requires_grad=True)
    b = gg.tensor([0.5, -0.5], device=device, requires_grad=True)
    x = gg.ones(5, 2, device=device)
    loss = ((x @ w + b).tanh() * 2).sum()
    before = viz.graph(loss, params={"w": w, "b": b}).source
    assert box(before, "w") == ["w", "float32 [2, 2]", "[[1, 2],", " [3, 4]]"]
    assert box(before, "b") == ["b", "float32 [2]", "[0.5, -0.5]"]
    assert box(before, "matmul") == ["matmul", "float32 [5, 2]"]
    assert box(before, "tanh") == ["tanh", "float32 [5, 2]"]
    assert box(before, "2") == ["2"]
    assert box(before, "float32 [5, 2]") == ["float32 [5, 2]"]  # x, a constant without a name
    total = next(lines[0] for lines in boxes(before).values() if lines[0].startswith("sum"))
    expected = "x matmul, w matmul, matmul add, b add, add tanh, tanh mul, 2 mul, mul total".split(", ")
    spelled = {"x": "float32 [5, 2]", "total": total}
    assert arrows(before) == sorted(tuple(spelled.get(name, name) for name in pair.split()) for pair in expected)
    loss.backward()
    after = viz.graph(loss, params={"w": w, "b": b}).source
    assert [line[:4] for line in box(after, "w")[4:]] == ["grad", "    "]
    grad = box(after, "b")[3]
    assert grad == f"grad [{', '.join(f'{g:.4g}' for g in b.grad.tolist())}]"
    assert box(after, total)[1:] == ["float32 []", f"{loss.item():.4g}"]


def test_intermediate_values_where_the_graph_holds_them():
    a = gg.tensor([1.0, 2.0], requires_grad=True)
    y = (a.exp() + 1).sum()
    assert box(viz.graph(y).source, "exp") == ["exp", "float32 [2]", "[2.718, 7.389]"]  # saved for the derivative
    assert box(viz.graph(y).source, "add") == ["add", "float32 [2]"]  # not needed by any
    y.backward()
    assert box(viz.graph(y).source, "exp") == ["exp", "float32 [2]"]  # freed


def test_a_value_changed_in_place_is_not_shown():
    a = gg.tensor([1.0, 2.0], requires_grad=True)
    e = a.exp()
    y = e * 3
    with gg.no_grad():
        e.data.zero_()
        e.detach().add_(5)
    assert box(viz.graph(y).source, "exp") == ["exp", "float32 [2]"]


def test_named_and_retained_intermediate_ones():
    a = gg.tensor([1.0, -2.0], requires_grad=True)
    h = a * 3
    h.retain_grad()
    k = h.relu()
    (k * k).sum().backward()
    y = (k * k).sum()
    source = viz.graph(y, params={"k": k, "a": a}).source
    assert box(source, "k = relu") == ["k = relu", "float32 [2]", "[3, 0]"]
    retained = [lines for lines in boxes(source).values() if "grad [6, 0]" in lines]
    assert [lines[:3] for lines in retained] == [["mul", "float32 [2]", "[3, -6]"]]


def test_several_outputs_of_one_operation_and_of_the_graph():
    class Halves(gg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x[:2].clone(), x[2:].clone()

        @staticmethod
        def backward(ctx, left, right):
            return gg.cat([left, right])

    a = gg.ones(4, requires_grad=True)
    left, right = Halves.apply(a)
    source = viz.graph([left * 2, right.exp()], params={"a": a}).source
    assert [lines[0] for lines in boxes(source).values()].count("Halves") == 1
    assert {("a", "Halves"), ("Halves", "output 0"), ("output 0", "mul"), ("output 1", "exp")} <= set(arrows(source))
    assert source.count("#fbe3c8") == 2


def test_a_model_and_its_parameters():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    source = viz.graph(model(gg.ones(2, 3)).mean(), params=dict(model.named_parameters())).source
    titles = [lines[0] for lines in boxes(source).values()]
    for name, p in model.named_parameters():
        assert box(source, name)[1] == f"float32 {list(p.shape)}"
    assert "relu" in titles and len(titles) == len(boxes(source))


def test_custom_functions_and_gradients_of_gradients():
    class Cube(gg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 3 * x * x

    x = gg.tensor(2.0, requires_grad=True)
    assert ("x", "Cube") in arrows(viz.graph(Cube.apply(x), params={"x": x}).source)
    (g,) = gg.autograd.grad(x.tanh(), x, create_graph=True)
    assert ("x", "tanh") in arrows(viz.graph(g, params={"x": x}).source)


def test_every_operation_can_be_drawn():
    for op in test_ops.ROWS:
        for sample in op.samples[:2] if op.differentiable else ():
            tensors = gradients.leaves(test_ops.make_inputs(op, sample, "float32", test_ops.rng_for(op.name)))
            out = test_ops.call(op, sample, tensors)
            if out.requires_grad:
                picture = viz.graph(out, params={f"input {i}": t for i, t in enumerate(tensors)})
                text = "\n".join(line for lines in boxes(picture.source).values() for line in lines)
                assert "input " in text and f"{out.dtype.name} {list(out.shape)}" in text, op
                assert len(boxes(picture.source)) == len(picture._drawing.boxes), op  # each is well formed


def test_a_constant_has_its_name_and_one_box():
    x = gg.tensor([1.0, 2.0])
    w, v = gg.tensor([3.0, 4.0], requires_grad=True), gg.tensor([5.0, 6.0], requires_grad=True)
    source = viz.graph([(x * w).sum(), v * x], params={"x": x, "w": w, "v": v}).source
    assert box(source, "x") == ["x", "float32 [2]", "[1, 2]"]
    assert [pair for pair in arrows(source) if pair[0] == "x"] == [("x", "mul"), ("x", "mul")]


def test_a_tensor_without_a_graph():
    assert boxes(viz.graph(gg.tensor([1, 2])).source) == {0: ["int64 [2]", "[1, 2]"]}
    plain = gg.tensor(3.0)
    assert boxes(viz.graph(plain, params={"plain": plain}).source) == {0: ["plain", "float32 []", "3"]}
    leaf = gg.tensor([1.0, 2.0], requires_grad=True)
    assert boxes(viz.graph(leaf, params={"leaf": leaf}).source) == {0: ["leaf", "float32 [2]", "[1, 2]"]}


def test_half_types_and_how_many_elements_are_shown():
    a = gg.tensor([1.0, 2.5], dtype=gg.bfloat16, requires_grad=True)
    assert boxes(viz.graph(a).source)[0] == ["bfloat16 [2]", "[1, 2.5]"]
    assert boxes(viz.graph(a, max_elements=1).source)[0] == ["bfloat16 [2]"]


def test_what_is_neither_tensor_nor_value_is_refused():
    with pytest.raises(TypeError, match="graph: expected a Tensor, a Value or a list"):
        viz.graph(3.0)
    with pytest.raises(TypeError, match="got an empty list"):
        viz.graph([])
    with pytest.raises(TypeError, match=r"params\['v'\] must be a Tensor, not Value"):
        viz.graph(gg.ones(1), params={"v": Value(1.0)})
    with pytest.raises(ValueError, match="rankdir must be one of TB, BT, LR, RL"):
        viz.graph(gg.ones(1), rankdir="up")


def test_drawing_keeps_nothing_alive():
    import weakref

    a = gg.ones(2, requires_grad=True)
    y = (a * 2).exp()
    node = weakref.ref(y.grad_fn)
    picture = viz.graph(y)
    del y
    assert node() is None and "exp" in picture.source


# -- Values ------------------------------------------------------------------------------


def test_values_with_labels_numbers_and_gradients():
    a, b = Value(2.0, label="a"), Value(-3.0)
    c = a * b
    c.label = 'say "c"\\'
    d = c.tanh() + a
    d.backward()
    source = viz.graph(d, params={"b": b}, rankdir="LR").source
    assert "rankdir=LR" in source
    assert box(source, "a") == ["a", "data 2", f"grad {a.grad:.4g}"]
    assert box(source, "b")[1] == "data -3"
    assert any(lines[0].startswith('say "c"') and lines[0].endswith("= *") for lines in boxes(source).values())
    assert len(re.findall("->", source)) == 5


def test_deep_graphs_need_no_stack():
    v = x = Value(1.0)
    t = s = gg.ones((), requires_grad=True)
    for _ in range(3000):
        v, t = v + x, t * s
    assert len(boxes(viz.graph(v).source)) == 3001 and len(boxes(viz.graph(t).source)) == 3001
    deep = Value(1.0)
    for _ in range(3000):
        deep = deep.tanh()
    assert len(boxes(viz.graph(deep).source)) == 3001


# -- the texts ------------------------------------------------------------------------------


def network():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    loss = nn.functional.cross_entropy(model(gg.randn(5, 3)), gg.tensor([0, 1, 0, 1, 1]))
    loss.backward()
    return viz.graph(loss, params={f"<{k}&>": p for k, p in model.named_parameters()})


def drawn(picture):
    """The SVG's boxes and arrows: number of a box -> (its lines, its middle), and pairs of numbers."""
    root = ET.fromstring(picture.svg())
    parts = {kind: [g for g in root.iter(f"{SVG}g") if g.get("class") == kind] for kind in ("node", "edge")}
    found = {}
    for node in parts["node"]:
        texts = node.findall(f"{SVG}text")
        xs, ys = ([float(text.get(k)) for text in texts] for k in ("x", "y"))
        lines = [text.text.replace("\N{NO-BREAK SPACE}", " ") for text in texts]
        found[int(node.find(f"{SVG}title").text[1:])] = lines, (sum(xs) / len(xs), sum(ys) / len(ys))
    pairs = [tuple(int(end[1:]) for end in edge.find(f"{SVG}title").text.split("->")) for edge in parts["edge"]]
    return found, pairs


@needs_package
@needs_dot
@pytest.mark.parametrize("rankdir", ["TB", "BT", "LR", "RL"])
def test_the_picture_shows_the_source(rankdir):
    picture = network()
    drawing = picture._drawing
    found, pairs = drawn(viz.Graph(drawing, rankdir))
    assert {i: lines for i, (lines, _) in found.items()} == {i: b.lines for i, b in enumerate(drawing.boxes)}
    assert sorted(pairs) == sorted(drawing.arrows)
    assert any(lines[0] == "<0.weight&>" for lines, _ in found.values())
    axis = 1 if rankdir in ("TB", "BT") else 0
    for start, end in drawing.arrows:
        assert (found[start][1][axis] < found[end][1][axis]) is (rankdir in ("TB", "LR"))


@needs_package
@needs_dot
@pytest.mark.parametrize(
    "text", ['"', "\\", '\\"', "a\\n", "\\l\\N\\G", "<b>&amp;</b>", "两 Ω é", "{a|b}", "a\nb", "x  y"]
)
def test_any_text_arrives_as_it_is(text):
    found, _ = drawn(viz.Graph(Drawing([Box("op", [text, "second"])]), "TB"))
    assert found[0][0] == [text.replace("\n", " "), "second"]


@needs_package
@needs_dot
def test_an_empty_drawing_is_a_picture_too():
    assert drawn(viz.Graph(Drawing(), "TB")) == ({}, [])


@needs_package
@needs_dot
def test_saving_pictures(tmp_path):
    picture = network()
    assert picture.save(tmp_path / "g.svg").read_text(encoding="utf-8") == picture.svg() == picture._repr_svg_()
    assert picture.save(str(tmp_path / "g.png")).read_bytes().startswith(b"\x89PNG")
    assert picture.save(tmp_path / "g.pdf").read_bytes().startswith(b"%PDF")


@needs_package
def test_a_failure_of_dot_is_told(monkeypatch, tmp_path):
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\ncat > /dev/null\necho no good >&2\nexit 3\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(RuntimeError, match=r"svg: dot failed with status 3: no good"):
        network().svg()
    with pytest.raises(RuntimeError, match=r"save: dot failed"):
        network().save(tmp_path / "g.png")
    assert not (tmp_path / "g.png").exists()


@needs_package
def test_without_the_program(without_dot, tmp_path):
    picture = network()
    with pytest.raises(
        RuntimeError, match=r"svg: .*pip install graphviz.*apt, brew or conda .*; the program is missing"
    ):
        picture.svg()
    with pytest.raises(RuntimeError, match="save: pictures need .* the program is missing"):
        picture.save(tmp_path / "g.svg")
    assert picture._repr_svg_() is None and "pictures need" in repr(picture)


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "graphviz", raising=False)
    importlib.invalidate_caches()
    picture = network()
    with pytest.raises(RuntimeError, match="svg: .*pip install graphviz.* (the package is|both are) missing"):
        picture.svg()
    with pytest.raises(RuntimeError, match="save: pictures need"):
        picture.save(tmp_path / "g.png")
    assert picture._repr_svg_() is None and "pip install graphviz" in repr(picture)


def test_saving_the_source(tmp_path, without_dot):
    picture = network()
    assert picture.save(str(tmp_path / "g.dot")).read_text(encoding="utf-8") == picture.source
    assert picture.save(tmp_path / "g.gv").exists()
    with pytest.raises(ValueError, match=r"must end in .svg, .png, .pdf, .dot or .gv"):
        picture.save(tmp_path / "g.jpg")


def test_as_text():
    a = gg.tensor([1.0, 2.0], requires_grad=True)
    lines = repr(viz.graph((a * a).exp(), params={"a": a})).split("\n")
    assert lines[:4] == [
        "graph of 3 boxes and 3 arrows",
        "   0  a  float32 [2]  [1, 2]",
        "   1  mul  float32 [2]  <- 0, 0",
        "   2  exp  float32 [2]  [2.718, 54.6]  <- 1",
    ]
    for _ in range(60):
        a = a * 2
    assert "      and 81 more" in repr(viz.graph(a))
