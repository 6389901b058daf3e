"""Saved tapes in which one thing is wrong: refused, or harmless. Nothing here may end the process."""

from __future__ import annotations

import importlib
import pathlib
import random
from collections.abc import Callable
from typing import Any

import graphs
import numpy as np
import pytest

import nbad
from nbad import encoding, saving, tree
from nbad.errors import TapeError
from nbad.kernel_avals import GIVES, NEVER_SAVED
from nbad.replay.graph import Graph, Node
from nbad.rules.cosine import REAL_TRANSFORM
from nbad.table import TABLE
from nbad.tape_file import pack, unpack
from nbad.trace import apply

ROWS = {op.name: op for op in TABLE}
RNG = np.random.default_rng(0)
X, IMAGE = RNG.normal(size=8), RNG.normal(size=(3, 4, 5))
PLACES = np.array([[0, 1], [1, 0], [2, 2]])


# Programs of all families ---------------------------------------------------------------------------
def elementwise(x: Any) -> Any:
    y = np.where(x > 0, np.exp(-x * x) * 1j + x, np.float32(2))
    return np.sum(np.abs(y) + np.clip(x, -0.5, 0.5).astype(np.float32) * np.real(y)) + np.linalg.norm(x)


def shaping(x: Any) -> Any:
    y = x.transpose(2, 0, 1).reshape(5, -1)[::-1, 1:3]
    z = np.concatenate([y, np.pad(y, 1)[1:-1, :2]]) + np.broadcast_to(x[0, 0, 0], (10, 2))
    w = np.tile(z, (2, 1)) + np.roll(np.repeat(z, 2, 0), 1, 0)
    return np.sum(w[None] * np.flip(w, 0)) + np.max(x) + np.sum(np.stack([y, 2 * y], 1)) + np.trace(y)


def indexing(x: Any) -> Any:
    y = x[np.array([0, 2, 2]), :, 1:] * np.nan_to_num(x[1:2, :, 1:], nan=0.5)
    return (
        np.sum(y * np.round(y, 1))
        + np.sum(x[x > 0])
        + np.sum(np.take_along_axis(x, np.argsort(x, 2), 2) ** 2)
    )


def products(x: Any) -> Any:
    y = np.tensordot(x, x, ((1, 2), (1, 2))) @ np.einsum("ijk,ilk->jl", x, x)[:3, :3]
    return np.sum(y) + np.vecdot(x[0], x[1]).sum() + np.cumprod(x, 1).sum() + np.prod(x, 0).sum() + np.var(x)


def transforms(x: Any) -> Any:
    y = np.fft.rfftn(x, axes=(0, 2)) * np.fft.fftn(x, axes=(1,))[..., :3]
    z = np.fft.irfftn(y, s=(4, 6), axes=(0, 2)) ** 2
    return np.sum(z) + np.sum(np.abs(np.fft.ifft(y, axis=1))) + np.sum(np.fft.hfft(y[0]))


def cosines(x: Any) -> Any:
    for kind, sine, form in ((1, False, "orthogonal"), (2, True, "plain"), (3, False, "transposed")):
        x = apply(REAL_TRANSFORM, x, axes=(0, 1), kind=kind, sine=sine, form=form, factor=0.5) ** 2
    return np.sum(x)


def convolutions(x: Any) -> Any:
    y = nbad.convolve(x, x[:1, :2, :3], axes=(1, 2), mode="same") * nbad.correlate(
        x, x[:1], axes=(1, 2), mode="same"
    )
    return np.sum(y**2) + np.sum(nbad.convolve(x[0], x[1], mode="wrap") * x[2])


def by_spectrum(x: Any) -> Any:
    y = OPERATOR(x)
    return np.sum(OPERATOR.H(y * y))


def blocks(x: Any) -> Any:
    y = nbad.convolve(np.tile(x, 200), x[:5], method="overlap-add")
    return np.sum(y * y)


def windows(x: Any) -> Any:
    return np.sum(nbad.patches(x[0] * x[1], PLACES, (2, 3)) ** 2) + np.sum(
        nbad.patches(x, PLACES[:, :1], 3) ** 3
    )


RULES = pathlib.Path(__file__).parent / "rules"
FAMILIES = sorted(
    file.stem for file in RULES.glob("test_*.py") if "\nCASES" in file.read_text(encoding="utf-8")
)
OPERATOR = nbad.Convolution(np.array([1.0, 0.5, 0.25]), (8,))
PROGRAMS: dict[str, tuple[Callable[[Any], Any], np.ndarray]] = {
    "elementwise": (elementwise, X),
    "shaping": (shaping, IMAGE),
    "indexing": (indexing, IMAGE),
    "products": (products, IMAGE),
    "transforms": (transforms, IMAGE),
    "cosines": (cosines, IMAGE),
    "convolutions": (convolutions, IMAGE),
    "by_spectrum": (by_spectrum, X),
    "blocks": (blocks, X),
    "windows": (windows, IMAGE),
}


def saved(function: Callable[[Any], Any], x: Any) -> bytes:
    """Return the file of value and gradient of `function`, in which rules and their adjoints stand."""

    def both(x: Any) -> Any:
        return nbad.value_and_grad(function)(x)

    compiled = nbad.compile(both)
    compiled(x)
    content: bytes = compiled.to_bytes()
    return content


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {name: saved(*program) for name, program in PROGRAMS.items()}


def names_in(content: bytes) -> set[str]:
    return {node.op.name for _, graph in unpack(content) for node in graph.nodes}


def test_the_programs_have_all_that_compiled_code_does(files: dict[str, bytes]) -> None:
    assert set(GIVES) <= set().union(*map(names_in, files.values()))


def test_every_operation_of_a_module_with_kernels_is_checked() -> None:
    """An op whose rule module uses kernels of nbad is listed, or never saved."""
    jitted = set()
    for op in TABLE:
        name = getattr(op.forward, "__module__", None) or "numpy"
        if name.partition(".")[0] not in ("nbad", "numpy"):
            continue  # a primitive of a page of the docs or of another test
        module = importlib.import_module(name)
        uses = [
            getattr(value, "__name__", "") for value in vars(module).values() if type(value) is type(pytest)
        ]
        uses = [name for name in uses if name != "nbad.kernels.memory"]  # buffers, which NumPy fills
        if not op.foreign and any(name.startswith("nbad.kernels") for name in uses):
            jitted.add(op.name)
    assert jitted | {"recurrence"} == set(GIVES) | NEVER_SAVED


@pytest.mark.parametrize("family", FAMILIES)
def test_no_recording_of_any_case_is_refused(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(RULES)
    cases = importlib.import_module(family).CASES
    for case in cases:
        arguments, asked = case.draw(case.dtypes[-1])

        def total(*arguments: Any, case: Any = case) -> Any:
            return sum(np.sum(np.real(leaf)) for leaf in tree.leaves(case.function(*arguments)))

        compiled = nbad.compile(nbad.value_and_grad(total, asked) if asked else case.function)
        compiled(*arguments)
        assert saving.unpack_variants(compiled.to_bytes())[2], case.name


def test_a_spectrum_stands_in_no_recording() -> None:
    graph = Graph(inputs=[0], outputs=[1])
    graph.add_slot(np.dtype(np.float64), (4,))
    graph.add_slot(np.dtype(np.complex128), (3,))
    attributes = {"lengths": (4,), "axes": (0,), "real": True, "start": (0,)}
    graph.nodes.append(Node(ROWS["spectrum"], (0,), (1,), attributes))
    with pytest.raises(TapeError, match="spectrum stands in no recording"):
        unpack(pack([({}, graph)]))


def test_a_dtype_of_huge_elements_is_refused() -> None:
    for name, dtype in (("astype", "S999999999"), ("convert", "|V999999999"), ("convert", "O")):
        graph = Graph(inputs=[0], outputs=[1])
        for _ in range(2):
            graph.add_slot(np.dtype(np.float64), (4,))
        graph.nodes.append(Node(ROWS[name], (0,), (1,), {"dtype": dtype}))
        with pytest.raises(TapeError, match="a dtype of"):
            unpack(pack([({}, graph)]))


def test_a_recorded_call_cannot_write_into_its_operands(tmp_path: pathlib.Path) -> None:
    """A template may say ``nan_to_num(x, copy=False)`` or ``any(x, out=x)``, and the operand may be the caller's array."""
    [(meta, graph)] = unpack(saved(lambda x: np.sum(np.nan_to_num(x) * x), X))
    [k] = [k for k, node in enumerate(graph.nodes) if node.op.name == "nan_to_num"]
    node = graph.nodes[k]
    template = encoding.pack(((1.0,), {"copy": False}), [], lambda value: isinstance(value, float))
    graph.nodes[k] = Node(node.op, tuple(graph.inputs), node.outputs, {"template": template}, node.line)
    (tmp_path / "f.npz").write_bytes(pack([(meta, graph)]))
    loaded = nbad.load(tmp_path / "f.npz")
    x = X.copy()
    x[3] = np.nan
    for _ in range(2):
        with pytest.raises(TapeError, match="an operation that failed"):
            loaded(x)
    assert np.isnan(x[3])


# One thing wrong ------------------------------------------------------------------------------------
def another(value: Any, rng: random.Random, large: bool) -> Any:
    """Return an attribute that differs from `value` somewhere."""
    if isinstance(value, tuple) and value and rng.random() < 0.8:
        k = rng.randrange(len(value))
        return (*value[:k], another(value[k], rng, large), *value[k + 1 :])
    if isinstance(value, tuple):
        return rng.choice([value[:-1], (*value, *value[-1:]), value[::-1], (*value, 0), ()])
    if isinstance(value, slice):
        parts = [value.start, value.stop, value.step]
        k = rng.randrange(3)
        parts[k] = another(parts[k], rng, large)
        return slice(*parts)
    if type(value) is bool:
        return rng.choice([not value, 2, None])
    if type(value) is int:
        far = [1 << 31, 1 << 39, 1 << 62, -(1 << 62)] if large else [-5, 11]
        return rng.choice([value + 1, value - 1, 0, -1, value * 2, 40, True, 1.5, None, "x", *far])
    if type(value) is str:
        others = [
            "x h",
            "x conj(h)",
            "conj(x) h",
            "plain",
            "transposed",
            "<f4",
            "<c16",
            "|O",
            "S99999999999",
            "",
            "ij,jk",
        ]
        return rng.choice([*others, 3, None])
    return rng.choice([None, 0, 1, -1, 0.5, "x", (0,), ()])


def damage(graph: Graph, rng: random.Random) -> None:
    """Make one thing of a graph wrong: an attribute, an operand, a shape or a dtype."""
    what = rng.choice(["attribute", "attribute", "attribute", "operand", "shape", "dtype"])
    with_attributes = [node for node in graph.nodes if node.attributes]
    checked = [node for node in with_attributes if node.op.name in GIVES]
    node = rng.choice(checked if checked and rng.random() < 0.7 else with_attributes)
    if what == "attribute":
        name = rng.choice(sorted(node.attributes))
        attributes = {**node.attributes, name: another(node.attributes[name], rng, node.op.name in GIVES)}
        graph.nodes[graph.nodes.index(node)] = Node(
            node.op, node.operands, node.outputs, attributes, node.line
        )
        return
    node = rng.choice([node, rng.choice(graph.nodes)])
    if what == "operand":
        earlier = [*graph.inputs, *graph.constants]
        earlier += [s for other in graph.nodes[: graph.nodes.index(node)] for s in other.outputs]
        operands = list(node.operands)
        operands[rng.randrange(len(operands))] = rng.choice(earlier)
        graph.nodes[graph.nodes.index(node)] = Node(
            node.op, tuple(operands), node.outputs, node.attributes, node.line
        )
        return
    slot = node.outputs[0]
    dtype, shape = graph.avals[slot]
    if what == "dtype":
        graph.avals[slot] = np.dtype(rng.choice(["f4", "f8", "c16", "i8", "b1"])), shape
    elif shape:
        k = rng.randrange(len(shape))
        shape = (*shape[:k], max(0, shape[k] + rng.choice([-1, 1, 7])), *shape[k + 1 :])
        graph.avals[slot] = dtype, rng.choice([shape, shape[1:], (1, *shape)])


def outcome(function: Callable[[], Any]) -> Any:
    """Return what a function returns, or the error that it raises."""
    try:
        with np.errstate(all="ignore"):
            return function()
    except Exception as error:
        return error


def assert_harmless(content: bytes, x: np.ndarray, path: pathlib.Path) -> bool:
    """A file is refused, or what is loaded computes what its operations do or raises; return whether it was loaded."""
    path.write_bytes(content)
    try:
        loaded = nbad.load(path)
    except TapeError:
        return False
    [variant] = saving.unpack_variants(content)[2]
    expected = outcome(lambda: graphs.naive(variant.primal.graph, [x]))
    before = x.copy()
    for _ in range(2):
        found = outcome(lambda: loaded(x))
        if not isinstance(found, Exception) and not isinstance(expected, Exception):
            leaves = tree.leaves(found)
            for place, value in zip(variant.primal.template.places, expected, strict=True):
                np.testing.assert_allclose(
                    leaves[place], value, rtol=1e-8, atol=1e-8 * (1 + np.max(np.abs(value), initial=0))
                )
    assert x.tobytes() == before.tobytes()
    return True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PROGRAMS)
def test_one_wrong_attribute_operand_shape_or_dtype(
    name: str, files: dict[str, bytes], tmp_path: pathlib.Path
) -> None:
    assert assert_harmless(files[name], PROGRAMS[name][1], tmp_path / "f.npz")
    refused = 0
    for seed in range(DRAWS):
        [(meta, graph)] = unpack(files[name])
        damage(graph, random.Random(f"{name} {seed}"))
        content = outcome(lambda graph=graph, meta=meta: pack([(meta, graph)]))
        if isinstance(content, bytes):
            refused += not assert_harmless(content, PROGRAMS[name][1], tmp_path / "f.npz")
    assert refused >= DRAWS // 3


DRAWS = 30
