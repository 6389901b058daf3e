"""Containers: flattening, rebuilding, selecting, registering."""

from __future__ import annotations

import dataclasses
import functools
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbad.errors import InputTypeError, WrtError
from nbad.tree import leaves, map_leaves, path_text, paths, rebuild, register, select, structure


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Layer:
    w: Any
    b: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    w: Any
    b: Any = 0.0


class Box:
    def __init__(self, items: list[Any], name: str) -> None:
        self.items, self.name = items, name


register(
    Box,
    lambda box: (list(enumerate(box.items)), box.name),
    lambda name, items: Box(items, name),
)

LEAVES = st.floats(allow_nan=False) | st.text(max_size=2) | st.integers()
KEYS = st.text(max_size=3) | st.integers(-3, 3)


def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few = st.lists(children, max_size=3)
    return st.one_of(
        few,
        few.map(tuple),
        st.dictionaries(KEYS, children, max_size=3),
        st.dictionaries(KEYS, children, max_size=3).map(OrderedDict),
        st.builds(Point, children, children),
        st.builds(Layer, children, children),
        st.builds(Frozen, children, children),
        st.builds(Box, few, st.text(max_size=2)),
    )


TREES = st.recursive(LEAVES | st.none(), containers, max_leaves=12)


@given(TREES)
def test_rebuild_from_own_leaves_gives_the_same_tree(tree: Any) -> None:
    again = rebuild(tree, leaves(tree))
    assert structure(again) == structure(tree)
    assert leaves(again) == leaves(tree)
    assert type(again) is type(tree)


@given(TREES)
def test_each_path_selects_its_leaf(tree: Any) -> None:
    found, where = leaves(tree), paths(tree)
    assert len(where) == len(found) == len(set(where))
    for path, leaf in zip(where, found, strict=True):
        assert select(tree, path) is leaf


@given(TREES)
def test_structure_ignores_values_and_is_hashable(tree: Any) -> None:
    numbered = rebuild(tree, range(len(leaves(tree))))
    assert structure(numbered) == structure(tree)
    assert hash(structure(numbered)) == hash(structure(tree))


@given(TREES, TREES)
def test_equal_structure_means_equal_paths(one: Any, other: Any) -> None:
    if structure(one) == structure(other):
        assert paths(one) == paths(other)
    else:
        assert structure([one]) != structure([other])


@given(TREES)
def test_map_leaves(tree: Any) -> None:
    mapped = map_leaves(lambda leaf: (leaf,), tree)
    assert structure(map_leaves(str, tree)) == structure(tree)
    assert leaves(mapped) == leaves(tree)


def test_leaves_of_every_kind() -> None:
    tree = {
        "a": [1.0, Point(2.0, 3.0)],
        "b": None,
        "c": Layer(4.0, Box([5.0, (6.0,)], "name")),
        "d": Frozen(7.0),
    }
    assert leaves(tree) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 0.0]
    assert paths(tree) == [
        ("a", 0),
        ("a", 1, "x"),
        ("a", 1, "y"),
        ("c", "w"),
        ("c", "b", 0),
        ("c", "b", 1, 0),
        ("d", "w"),
        ("d", "b"),
    ]


@pytest.mark.parametrize(
    "leaf", [np.zeros((2, 2)), np.float32(1), "ab", 3, Layer, {1, 2}, range(3)], ids=repr
)
def test_what_is_not_a_container_is_a_leaf(leaf: Any) -> None:
    assert leaves(leaf) == [leaf] or leaves(leaf)[0] is leaf
    assert paths(leaf) == [()]
    assert rebuild(leaf, ["new"]) == "new"


def test_subclasses_of_containers_are_leaves_until_registered() -> None:
    class Names(dict[str, float]):
        pass

    names = Names(a=1.0)
    assert leaves(names)[0] is names
    register(Names, lambda n: (n.items(), None), lambda context, values: Names(a=values[0]))
    assert leaves(names) == [1.0]
    assert type(rebuild(names, [2.0])) is Names


def test_none_has_no_leaves() -> None:
    assert leaves(None) == []
    assert rebuild(None, []) is None
    assert rebuild([None, 1.0], [2.0]) == [None, 2.0]


def test_dict_order_is_kept_and_counts() -> None:
    tree = {"b": 1.0, "a": 2.0}
    assert list(rebuild(tree, [3.0, 4.0]).items()) == [("b", 3.0), ("a", 4.0)]
    assert structure(tree) != structure({"a": 2.0, "b": 1.0})


def test_defaultdict_keeps_its_factory() -> None:
    again = rebuild(defaultdict(list, a=1.0), [2.0])
    assert again == {"a": 2.0}
    assert again["new"] == []


def test_model_is_not_changed() -> None:
    tree = {"a": [1.0], "b": Layer(2.0, 3.0)}
    rebuild(tree, [10.0, 20.0, 30.0])["a"].append(0.0)
    assert tree == {"a": [1.0], "b": Layer(2.0, 3.0)}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_rebuild_counts_leaves(count: int) -> None:
    with pytest.raises(ValueError, match=f"has 2 leaves, but {count} new ones"):
        rebuild([1.0, (2.0,)], [0.0] * count)


def test_dataclass_runs_no_init_and_drops_what_is_derived() -> None:
    @dataclasses.dataclass
    class Normalised:
        w: Any
        scale: dataclasses.InitVar[float]
        total: Any = dataclasses.field(init=False)
        never: Any = dataclasses.field(init=False)

        def __post_init__(self, scale: float) -> None:
            self.w = self.w / self.w.sum() * scale
            self.total = self.w.sum()
            self.derived = self.w * 2

        @functools.cached_property
        def double(self) -> Any:
            return self.w * 2

    old = Normalised(np.array([1.0, 3.0]), 1.0)
    assert old.double.tolist() == [0.5, 1.5]
    assert paths(old) == [("w",), ("total",)]
    new = rebuild(old, [np.array([2.0, 2.0]), 5.0])
    assert new.w.tolist() == [2.0, 2.0]
    assert new.total == 5.0
    assert new.double.tolist() == [4.0, 4.0]
    with pytest.raises(AttributeError):
        new.derived  # noqa: B018 the attribute access is the test


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    tree: Any = 1.0
    for _ in range(depth):
        tree = wrap(tree)
    return tree


@pytest.mark.parametrize("wrap", [lambda t: [t], lambda t: {"k": t}, lambda t: Layer(t, None)], ids="ldc")
@pytest.mark.parametrize("depth", [900, 5000])
def test_deep_nesting(wrap: Callable[[Any], Any], depth: int) -> None:
    tree = nested(depth, wrap)
    (path,) = paths(tree)
    assert len(path) == depth
    assert leaves(rebuild(tree, [2.0])) == [2.0]
    assert select(tree, path) == 1.0
    assert len(structure(tree)) == depth + 1 + (depth if wrap(0) == Layer(0, None) else 0)


@pytest.mark.parametrize("walk", [leaves, paths, structure])
def test_a_container_that_contains_itself(walk: Callable[[Any], Any]) -> None:
    tree: list[Any] = [1.0]
    tree.append(tree)
    with pytest.raises(InputTypeError, match="contain itself"):
        walk(tree)


def test_select_takes_positions_from_the_end_and_of_named_tuples() -> None:
    tree = {"p": [Point(1.0, 2.0), Point(3.0, 4.0)]}
    assert select(tree, ("p", -1, 1)) == 4.0
    assert select(tree, ("p", np.int64(0), "x")) == 1.0
    assert select(tree, ()) is tree


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("q",), "there is no 'q' in the container \\(dict\\)"),
        (("p", 2), "there is no 2 in the container.p \\(list\\)"),
        (("p", 0, "z"), "there is no 'z' in the container.p\\[0\\] \\(Point\\)"),
        (("p", 0, "x", 0), "the container.p\\[0\\].x is a leaf \\(float\\)"),
        (("p", "0"), "there is no '0'"),
    ],
)
def test_select_says_what_is_missing(path: tuple[Any, ...], message: str) -> None:
    with pytest.raises(WrtError, match=message):
        select({"p": [Point(1.0, 2.0), 3.0]}, path)


def test_select_lists_the_keys() -> None:
    with pytest.raises(WrtError, match="Existing keys in the container: w, b"):
        select(Layer(1.0, 2.0), ("psf",))


@pytest.mark.parametrize("cls", [list, dict, type(None), np.ndarray, np.matrix, float, np.float64, bool])
def test_register_refuses_containers_and_leaves(cls: type) -> None:
    with pytest.raises(TypeError, match="cannot be registered"):
        register(cls, lambda obj: ([], None), lambda context, children: None)


def test_register_needs_a_class() -> None:
    with pytest.raises(TypeError, match="needs a class"):
        register(3, lambda obj: ([], None), lambda context, children: None)  # type: ignore[arg-type]


def test_registration_replaces_the_treatment_of_a_dataclass() -> None:
    @dataclasses.dataclass
    class Model:
        w: Any
        name: str

    assert leaves(Model(1.0, "m")) == [1.0, "m"]
    register(Model, lambda m: ([("w", m.w)], m.name), lambda name, children: Model(children[0], name))
    assert leaves(Model(1.0, "m")) == [1.0]
    assert rebuild(Model(1.0, "m"), [2.0]) == Model(2.0, "m")


def test_path_text() -> None:
    assert path_text("p", ()) == "p"
    assert path_text("p", ("a", 0, -1, "b c", None)) == "p.a[0][-1]['b c'][None]"
