"""Programs: random graphs against an interpreter that performs one operation after another."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

import nbad  # noqa: F401 - fills the table
from nbad.errors import KernelError
from nbad.keeping import run_forward
from nbad.kernels import memory
from nbad.kernels.threads import get_threads, set_threads
from nbad.replay.graph import ARRAY, CONTENTS, PYTHON, SCALAR, TRUTH, Graph, Guard, Node
from nbad.replay.program import Program
from nbad.replay.storage import Arena
from nbad.table import TABLE, UFUNCS, Op

OPS: dict[str, Op] = {}
for _op in TABLE:
    OPS.setdefault(_op.name, _op)


def row(name: str) -> Op:
    """Return a row by the name of its ufunc or its own."""
    return UFUNCS.get(getattr(np, name, None)) or OPS[name]  # type: ignore[arg-type]


def formed(value: Any, form: int) -> Any:
    """Return a value in its form."""
    if form == ARRAY:
        return np.asarray(value)
    return np.asarray(value)[()] if form == SCALAR else np.asarray(value).item()


class Builder:
    """A graph, made by performing its operations on example values."""

    def __init__(self, *values: Any) -> None:
        self.graph = Graph()
        self.values: list[Any] = []
        for value in values:
            form = (
                ARRAY
                if isinstance(value, np.ndarray)
                else (SCALAR if isinstance(value, np.generic) else PYTHON)
            )
            self.graph.inputs.append(self._slot(value, form))
        self.examples = list(values)

    def _slot(self, value: Any, form: int) -> int:
        self.values.append(value)
        return self.graph.add_slot(np.asarray(value).dtype, np.shape(value), form)

    def constant(self, value: Any) -> int:
        self.values.append(value)
        return self.graph.add_constant(value)

    def add(self, name: str | Op, *operands: int, form: int | None = None, **attributes: Any) -> int:
        op = row(name) if isinstance(name, str) else name
        with np.errstate(all="ignore"):
            made = run_forward(op, [self.values[s] for s in operands], attributes, ())[0]
        outputs = made if op.outputs > 1 else (made,)
        if form is None:
            form = ARRAY if isinstance(outputs[0], np.ndarray) else SCALAR
        slots = tuple(self._slot(formed(v, form), form) for v in outputs)
        self.graph.nodes.append(Node(op, operands, slots, attributes))
        return slots[0]

    def guard(self, slot: int, kind: str) -> None:
        seen = bool(self.values[slot]) if kind == TRUTH else np.array(self.values[slot])
        self.graph.guards.append(Guard(slot, kind, seen, 7, len(self.graph.nodes)))


def interpret(graph: Graph, values: list[Any]) -> list[Any]:
    """Perform a graph, node by node."""
    env: dict[int, Any] = dict(zip(graph.inputs, values, strict=True)) | graph.constants
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            made = run_forward(node.op, [env[s] for s in node.operands], node.attributes, ())[0]
            for slot, value in zip(node.outputs, made if node.op.outputs > 1 else (made,), strict=True):
                env[slot] = formed(value, graph.forms[slot])
    return [env[slot] for slot in graph.outputs]


def check_equal(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    a, b = np.asarray(found), np.asarray(expected)
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    if a.dtype.kind in "fc":
        eps = np.finfo(a.dtype).eps
        scale = np.max(np.abs(b[np.isfinite(b)]), initial=1.0)
        np.testing.assert_allclose(a, b, rtol=2000 * eps, atol=2000 * eps * scale)
    else:
        np.testing.assert_array_equal(a, b)


def check(graph: Graph, values: list[Any], masks: list[int] | None = None) -> Program:
    """Run a graph three times in one workspace and compare; the results are the caller's own."""
    program = Program(graph, [1] * len(graph.inputs) if masks is None else masks)
    workspace = program.workspace()
    before = [np.array(v) for v in values]
    expected = interpret(graph, values)
    for _ in range(3):
        assert workspace.run(values, -1) == -1
        found = workspace.results()
        for one, other in zip(found, expected, strict=True):
            check_equal(one, other)
        arrays = [v for v in found if isinstance(v, np.ndarray)]
        for i, one in enumerate(arrays):
            assert one.flags.writeable
            assert one.flags.c_contiguous
            assert not any(np.shares_memory(one, other) for other in arrays[:i])
            assert not any(np.shares_memory(one, v) for v in values if isinstance(v, np.ndarray))
            one[...] = 0
    for value, copy in zip(values, before, strict=True):
        np.testing.assert_array_equal(value, copy)
    return program


def check_threads(graph: Graph, x: np.ndarray) -> None:
    """Compare the bits of a program of one input between one thread and two."""
    before = get_threads()
    found = []
    try:
        for count in (1, 2):
            set_threads(count)
            workspace = Program(graph, [1]).workspace()
            assert workspace.run([x], 1) == -1
            found.append(workspace.results())
    finally:
        set_threads(before)
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_loss_and_its_gradient_are_one_run() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=1000)
    b = Builder(x)
    s = b.add("sin", 0)
    t = b.add("sum_all", b.add("multiply", s, s))
    g = b.add("multiply", b.add("multiply", s, b.constant(2.0)), b.add("cos", 0))
    b.graph.outputs += [t, g]
    program = check(b.graph, [x])
    assert [d["kind"] for d in program.describe()] == ["run"]
    workspace = program.workspace()
    assert workspace.run([x], 1) == -1
    assert (workspace.steps_run, workspace.nodes_run) == (1, 6)


UNARY = [
    "sin",
    "exp",
    "square",
    "negative",
    "tanh",
    "absolute",
    "log1p",
    "sqrt",
    "conjugate",
    "positive",
    "floor",
    "sign",
]
BINARY = [
    "add",
    "subtract",
    "multiply",
    "divide",
    "maximum",
    "arctan2",
    "less",
    "equal",
    "hypot",
    "power",
    "logical_and",
]


def random_graph(rng: np.random.Generator, dtype: str, steps: int) -> tuple[Builder, list[Any]]:
    """Return a graph of random operations on arrays that broadcast against each other."""
    rows, columns = int(rng.integers(1, 7)), int(rng.choice([1, 3, 70, 300]))
    shapes: list[tuple[int, ...]] = [(rows, columns), (columns,), (rows, 1), ()]

    def sample(shape: tuple[int, ...]) -> np.ndarray:
        value = rng.normal(size=shape)
        if dtype[0] == "c":
            value = value + 1j * rng.normal(size=shape)
        return np.array(value, dtype)

    values: list[Any] = [sample(s) for s in shapes] + [float(rng.normal()), sample((rows, columns))]
    values.append(rng.integers(-5, 5, size=(rows, columns)))
    b = Builder(*values)
    for _ in range(steps):
        slots = list(range(len(b.values)))
        x, y = (int(rng.choice(slots)) for _ in range(2))
        choice = rng.integers(0, 12)
        try:
            if choice < 4:
                b.add(str(rng.choice(UNARY)), x)
            elif choice < 8:
                b.add(str(rng.choice(BINARY)), x, y)
            elif choice == 8:
                b.add("sum_all", x)
            elif choice == 9 and np.ndim(b.values[x]) == 2:
                b.add("transpose", b.add("transpose", x, axes=(1, 0)), axes=(1, 0))
            elif choice == 10 and np.ndim(b.values[x]) == 2 and isinstance(b.values[x], np.ndarray):
                part = b.add("getitem", x, index=(slice(None), slice(None, -1)))
                b.add("scatter", part, index=(slice(None), slice(1, None)), shape=np.shape(b.values[x]))
            elif choice == 11:
                b.add("where", b.add("greater", x, y), x, y)
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            continue
        if (
            not np.all(np.isfinite(np.asarray(b.values[-1], complex)))
            or np.max(np.abs(b.values[-1]), initial=0) > 1e3
        ):
            b.graph.nodes.pop()  # too large to compare
            del b.values[-1], b.graph.avals[-1], b.graph.forms[-1]
    made = [s for node in b.graph.nodes for s in node.outputs]
    b.graph.outputs += [int(s) for s in rng.choice(made, size=min(4, len(made)))] if made else [0]
    b.graph.outputs.append(made[-1] if made else 0)
    return b, values


@pytest.mark.parametrize("dtype", ["f8", "f4", "c16", "c8"])
@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_equal_the_interpreter(seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    b, values = random_graph(rng, dtype, 25)
    check(b.graph, values)


def test_guards_stop_a_run() -> None:
    x = np.array([1.0, 2.0, 3.0])
    b = Builder(x)
    total = b.add("sum_all", 0)
    b.guard(b.add("greater", total, b.constant(0.0)), TRUTH)
    b.guard(b.add("floor", total), CONTENTS)
    y = b.add("cumsum", 0, axis=0)
    b.graph.outputs.append(y)
    workspace = Program(b.graph, [1]).workspace()
    assert workspace.run([x], 1) == -1
    np.testing.assert_array_equal(workspace.results()[0], np.cumsum(x))
    assert workspace.run([-x], 1) == 0
    assert workspace.failed_line == 7
    assert workspace.run([2 * x], 1) == 1
    assert workspace.run([x], 1) == -1


def test_a_guard_on_an_array_compares_every_bit() -> None:
    x = np.array([[1.0, 0.0], [3.0, 4.0]])
    b = Builder(x)
    b.guard(b.add("transpose", 0, axes=(1, 0)), CONTENTS)
    b.guard(0, CONTENTS)
    b.graph.outputs.append(b.add("sin", 0))
    workspace = Program(b.graph, [1]).workspace()
    assert workspace.run([x], 1) == -1
    assert workspace.run([np.array([[1.0, -0.0], [3.0, 4.0]])], 1) == 0


def test_steps_of_unchanged_inputs_are_skipped() -> None:
    rng = np.random.default_rng(1)
    u, v = rng.normal(size=(2, 5000))
    b = Builder(u, v)
    kernel = b.add("exp", 1)
    wide = b.add("cumsum", kernel, axis=0)
    product = b.add("multiply", b.add("multiply", 0, wide), kernel)
    b.graph.outputs += [b.add("sum_all", product), kernel, b.add("sin", b.constant(1.5))]
    program = Program(b.graph, [1, 2])
    workspace = program.workspace()
    for changed, values in [(1, [u, v]), (1, [2 * u, v]), (3, [u, v + 1]), (1, [-u, v + 1])]:
        assert workspace.run(values, changed) == -1
        for found, expected in zip(workspace.results(), interpret(b.graph, values), strict=True):
            check_equal(found, expected)
    assert workspace.nodes_skipped == 3
    assert workspace.nodes_run == 3


def test_a_result_of_another_shape_stops_a_run() -> None:
    x = np.array([1.0, -2.0, 3.0])
    b = Builder(x)
    positive = b.add("greater", 0, b.constant(0.0))
    taken = b.add("gather", 0, positive, template=("array",), unique=True)
    b.graph.outputs.append(b.add("sum_all", taken))
    workspace = Program(b.graph, [1]).workspace()
    assert workspace.run([x], 1) == -1
    assert workspace.results()[0] == 4.0
    assert workspace.run([-x], 1) == -2
    assert workspace.run([x], 1) == -1


@pytest.mark.parametrize("dtype", ["f8", "f4", "c16"])
def test_the_same_bits_for_one_thread_and_two(dtype: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 1001)).astype(dtype)
    b = Builder(x)
    s = b.add("sin", 0)
    t = b.add("sum_all", b.add("multiply", s, s))
    z = b.add("multiply", b.add("exp", 0), t)
    b.graph.outputs += [t, z, b.add("sum_all", z)]
    check(b.graph, [x])
    check_threads(b.graph, x)


def test_inputs_and_constants_may_be_results() -> None:
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    b = Builder(x, 2.5, np.float32(1.5))
    c = b.constant(np.broadcast_to(np.array([7.0, 8.0]), (3, 2)))
    view = b.add("transpose", 0, axes=(1, 0))
    part = b.add("getitem", c, index=(slice(1, None), slice(1, None)))
    b.graph.outputs += [0, 1, 2, c, view, 0, b.add("transpose", c, axes=(1, 0)), part, b.add("sin", part)]
    check(b.graph, [x, 2.5, np.float32(1.5)])


def test_python_numbers_keep_their_weakness() -> None:
    x = np.linspace(0, 1, 5, dtype=np.float32)
    b = Builder(x, 2.0)
    doubled = b.add("multiply", 1, 1, form=PYTHON)
    b.graph.outputs += [
        b.add("multiply", 0, doubled),
        doubled,
        b.add("divide", doubled, b.constant(3.0), form=PYTHON),
    ]
    check(b.graph, [x, 2.0])


def test_maxima_norms_and_dots_end_a_run() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 4567))
    b = Builder(x, y)
    s = b.add("sin", 0)
    b.graph.outputs += [
        b.add("max", s, axis=(0,), keepdims=False),
        b.add("min", s, axis=(0,), keepdims=True),
        b.add("norm", s, axis=(0,), keepdims=False),
        b.add("matmul", s, 1),
        b.add("vecdot", s, 1),
        b.add("tensordot", s, s, axes=((0,), (0,))),
    ]
    program = check(b.graph, [x, y])
    assert all(d["kind"] == "run" for d in program.describe())
    x[17] = np.nan
    check(b.graph, [x, y])


IN_PLACE = [
    ("sum", ((6, 7),), {"axis": (0,), "dtype": None, "keepdims": False}),
    ("max", ((6, 7),), {"axis": (1,), "keepdims": True}),
    ("cumsum", ((6, 7),), {"axis": 1}),
    ("concatenate", ((6, 7), (6, 2)), {"axis": 1}),
    ("stack", ((6,), (6,)), {"axis": 1}),
    ("matmul", ((6, 7), (7, 3)), {}),
    ("matmul", ((5, 6, 7), (7,)), {}),
    ("tensordot", ((6, 7, 3), (3, 6, 2)), {"axes": ((2, 0), (0, 1))}),
    ("tensordot", ((6, 7), (7,)), {"axes": ((1,), (0,))}),
    ("scatter", ((3,),), {"index": (slice(None, None, 2),), "shape": (6,)}),
    ("nextafter", ((6,), (6,)), {}),
]


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize(("name", "shapes", "attributes"), IN_PLACE)
def test_host_steps_write_into_planned_memory(
    name: str, shapes: Any, attributes: dict[str, Any], dtype: str
) -> None:
    rng = np.random.default_rng(5)
    values = [rng.normal(size=s).astype(dtype) for s in shapes]
    b = Builder(*values)
    op = row(name)
    made = b.add(op, *range(len(shapes)), **attributes)
    again = b.add("sin", made)
    b.graph.outputs += [made, b.add(op, *range(len(shapes)), **attributes), again]
    program = check(b.graph, values)
    assert sum(d["kind"] == "host" for d in program.describe()) == 2
    assert not program.dynamic


def test_a_scatter_of_rows_with_repeated_indices() -> None:
    rng = np.random.default_rng(6)
    x, places = rng.normal(size=(4, 3)), np.array([1, 0, 1, 5])
    b = Builder(x, places)
    y = b.add("scatter_add", 0, 1, template=("array",), unique=False, shape=(6, 3))
    b.graph.outputs += [b.add("multiply", y, y), y]
    check(b.graph, [x, places])


def test_a_steady_state_takes_no_blocks_of_memory() -> None:
    rng = np.random.default_rng(7)
    x, w = rng.normal(size=(600, 500)), rng.normal(size=(500, 400))
    b = Builder(x, w)
    z = b.add("tanh", b.add("matmul", b.add("sin", 0), 1))
    gradient = b.add("tensordot", b.add("multiply", 0, 0), z, axes=((0,), (0,)))
    b.graph.outputs += [b.add("sum_all", z), gradient]
    workspace = Program(b.graph, [1, 1]).workspace()
    for _ in range(2):
        assert workspace.run([x, w], 1) == -1
        workspace.results()
    before = memory.allocated()
    tracemalloc.start()
    try:
        for _ in range(5):
            assert workspace.run([x, w], 1) == -1
            workspace.results()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert memory.allocated().fresh == before.fresh
    assert peak < 100_000


@pytest.mark.parametrize("shape", [(70_000,), (70_001, 1), (300, 301), (2000, 33), (3, 40_000), (40, 50, 60)])
def test_sums_of_shifted_differences_are_made_tile_by_tile(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(size=shape)
    b = Builder(x)
    rest = (slice(None),) * (len(shape) - 1)
    ahead, behind = (slice(1, None), *rest), (slice(None, -1), *rest)
    d = b.add(
        "subtract", b.add("getitem", 0, index=ahead), b.add("square", b.add("getitem", 0, index=behind))
    )
    root = b.add("sqrt", b.add("add", b.add("multiply", d, d), b.constant(1e-3)))
    one, two = b.add("divide", d, root), b.add("multiply", d, root)
    up = b.add("scatter", one, index=ahead, shape=shape)
    down = b.add("scatter", two, index=behind, shape=shape)
    total = b.add("add", up, b.add("negative", down))
    b.graph.outputs += [b.add("sum_all", root), total, b.add("sum_all", total)]
    program = check(b.graph, [x])
    assert len(program.tiles) == 1
    assert program.arena_bytes < x.nbytes // 4


def test_a_tile_has_the_same_bits_for_one_thread_and_two() -> None:
    rng = np.random.default_rng(9)
    x = rng.normal(size=(517, 613)).astype(np.float32)
    b = Builder(x)
    inner = (slice(None, -1), slice(None, -1))
    right, below = (slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))
    corner = b.add("getitem", 0, index=inner)
    dx, dy = (b.add("subtract", b.add("getitem", 0, index=i), corner) for i in (right, below))
    root = b.add("sqrt", b.add("add", b.add("square", dx), b.add("square", dy)))
    pads = [
        b.add("scatter", b.add("multiply", v, root), index=i, shape=x.shape)
        for v, i in ((dx, right), (dy, below))
    ]
    back = b.add("scatter", root, index=inner, shape=x.shape)
    b.graph.outputs += [b.add("add", b.add("add", *pads), back), b.add("sum_all", root), root]
    assert len(check(b.graph, [x]).tiles) == 1
    check_threads(b.graph, x)


def test_a_step_of_python_does_not_part_two_runs_of_one_tile() -> None:
    x = np.random.default_rng(10).normal(size=(300, 301))
    b = Builder(x)
    inner, below = (slice(None, -1), slice(None)), (slice(1, None), slice(None))
    d = b.add("subtract", b.add("getitem", 0, index=below), b.add("getitem", 0, index=inner))
    weight = b.add("multiply", d, b.constant(2.0))
    product = b.add("matmul", 0, b.constant(np.eye(301)))  # recorded between the two, read by the second
    pads = [b.add("scatter", weight, index=i, shape=x.shape) for i in (inner, below)]
    b.graph.outputs += [b.add("add", b.add("subtract", *pads), product), b.add("sum_all", d)]
    assert len(check(b.graph, [x]).tiles) == 1


def test_a_number_that_stays_does_not_part_a_run() -> None:
    x = np.random.default_rng(11).normal(size=70_000)
    b = Builder(x, 3.0)
    root = b.add("exp", 0)
    total = b.add("sum_all", root)
    number = b.add("multiply", 1, b.constant(0.5))  # recorded after the sum, read beside it
    b.graph.outputs += [total, b.add("multiply", root, number)]
    program = check(b.graph, [x, 3.0], [1, 2])
    large = [step for step in program.describe() if step["shape"] == x.shape]
    assert [step["nodes"] for step in large] == [["exp", "sum_all", "multiply"]]


def test_an_input_in_another_layout_is_copied() -> None:
    x = np.arange(6.0).reshape(2, 3)
    b = Builder(x)
    b.graph.outputs += [b.add("sin", 0), b.add("cumsum", 0, axis=1)]
    workspace = Program(b.graph, [1]).workspace()
    raw = np.zeros(49, np.uint8)
    crooked = np.ndarray((2, 3), np.float64, raw, 1)
    crooked[...] = x
    for value in (np.asfortranarray(x), crooked, x):
        assert workspace.run([value], 1) == -1
        for found, expected in zip(workspace.results(), interpret(b.graph, [x]), strict=True):
            check_equal(found, expected)
    with pytest.raises(KernelError, match="input 0"):
        workspace.run([x[:1]], 1)
    assert workspace.run([x], 1) == -1


def test_an_error_of_a_host_step_leaves_the_workspace_usable() -> None:
    x, places = np.arange(4.0), np.array([0, 3])
    b = Builder(x, places)
    taken = b.add("gather", b.add("sin", 0), 1, template=("array",), unique=True)
    b.graph.nodes[-1].line = 11
    b.graph.outputs.append(taken)
    workspace = Program(b.graph, [1, 2]).workspace()
    with pytest.raises(IndexError):
        workspace.run([x, np.array([0, 4])], 1)
    assert workspace.failed_line == 11
    assert workspace.run([x, places], 1) == -1
    np.testing.assert_array_equal(workspace.results()[0], np.sin(x)[places])


def test_offsets_in_the_arena_do_not_overlap() -> None:
    rng = np.random.default_rng(10)
    requests = []
    for _ in range(300):
        first = int(rng.integers(0, 50))
        requests.append((first, first + int(rng.integers(0, 10)), int(rng.integers(1, 5000))))
    arena = Arena()
    offsets = arena.plan(requests)
    for i, (first, last, nbytes) in enumerate(requests):
        assert offsets[i] % 64 == 0
        assert offsets[i] + nbytes <= arena.size
        for j in range(i):
            if requests[j][0] <= last and first <= requests[j][1]:
                assert offsets[i] + nbytes <= offsets[j] or offsets[j] + requests[j][2] <= offsets[i]
    assert arena.size < sum(n for *_, n in requests) / 2


def test_a_small_program_runs_without_python_between() -> None:
    x = np.array([1.0, 2.0, 3.0])
    b = Builder(x)
    s = b.add("sin", 0)
    total = b.add("sum_all", b.add("square", s))
    b.guard(b.add("greater", total, b.constant(0.5)), TRUTH)
    b.graph.outputs += [total, b.add("multiply", s, b.constant(2.0))]
    program = Program(b.graph, [1])
    assert program.fast
    workspace = program.workspace()
    assert workspace.quick([x]) is None
    assert workspace.run([x], 1) == -1
    for value in (x, 2 * x, -x):
        found = workspace.quick([value])
        assert found is not None
        for one, other in zip(found, interpret(b.graph, [value]), strict=True):
            check_equal(one, other)
    assert workspace.quick([0 * x]) is None
    assert workspace.run([0 * x], 1) == 0
    assert workspace.run([x], 1) == -1
    assert workspace.quick([x[:2]]) is None
    assert workspace.quick([x.astype(np.float32)]) is None
    assert workspace.quick([[1.0, 2.0, 3.0]]) is None
