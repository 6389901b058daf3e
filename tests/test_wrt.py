"""What wrt asks for."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbad.errors import WrtError
from nbad.tree import leaves, paths, rebuild, select
from nbad.wrt import Asked, Entry, asked_leaves, parse_wrt, signature_of, substitute


class Pair(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Lens:
    psf: Any
    na: float = 1.4


def f(params: Any, x: Any, bias: Any = 0.5, *, scale: Any = 2.0) -> None: ...


def several(*xs: Any, **named: Any) -> None: ...


def first(a: Any, b: Any = 7.0, /, c: Any = 8.0) -> None: ...


PARAMS = {
    "psf": 1.0,
    "layers": [{"w": 2.0}, {"w": 3.0}],
    "0": 4.0,
    7: 5.0,
    "a.b": 6.0,
    "pair": Pair(8.0, 9.0),
    "lens": Lens(10.0),
}


def read(wrt: Any, function: Any = f, args: tuple[Any, ...] = (PARAMS, 11.0), **kwargs: Any) -> Asked:
    return parse_wrt(wrt, signature_of(function), args, kwargs)


@pytest.mark.parametrize(
    ("wrt", "argument", "path"),
    [
        (0, 0, ()),
        (np.int64(1), 1, ()),
        (-1, 1, ()),
        (-2, 0, ()),
        ("x", 1, ()),
        ("params", 0, ()),
        ("params.psf", 0, ("psf",)),
        ("params.layers.1.w", 0, ("layers", 1, "w")),
        ("params.layers.-1.w", 0, ("layers", 1, "w")),
        ("params.0", 0, ("0",)),
        ("params.7", 0, (7,)),
        ("params.pair.y", 0, ("pair", "y")),
        ("params.pair.1", 0, ("pair", "y")),
        ("params.lens.psf", 0, ("lens", "psf")),
        ((0, "psf"), 0, ("psf",)),
        ((-2, "psf"), 0, ("psf",)),
        ((0, "layers", 1), 0, ("layers", 1)),
        ((0, "layers", -1, "w"), 0, ("layers", 1, "w")),
        (("params", 7), 0, (7,)),
        (("params", "psf"), 0, ("psf",)),
        (("params", "a.b"), 0, ("a.b",)),
        (("params", "layers", 0, "w"), 0, ("layers", 0, "w")),
        (("params", "lens", "na"), 0, ("lens", "na")),
    ],
    ids=repr,
)
def test_one_entry(wrt: Any, argument: int | str, path: tuple[Any, ...]) -> None:
    asked = read(wrt)
    assert asked.entries == (Entry(argument, path),)
    assert not asked.several


@pytest.mark.parametrize(
    ("wrt", "entries"),
    [
        ((0,), [(0, ())]),
        (("x",), [(1, ())]),
        ((0, 1), [(0, ()), (1, ())]),
        ((1, 0), [(1, ()), (0, ())]),
        ((-1, 0, 1), [(1, ()), (0, ()), (1, ())]),
        (("x", "params"), [(1, ()), (0, ())]),
        (("x", "params.psf"), [(1, ()), (0, ("psf",))]),
        (("params.psf", "x"), [(0, ("psf",)), (1, ())]),
        (("params.psf", "params.layers.0.w"), [(0, ("psf",)), (0, ("layers", 0, "w"))]),
        ((0, ("params", "psf")), [(0, ()), (0, ("psf",))]),
        ((1, (0, "psf")), [(1, ()), (0, ("psf",))]),
        (((0, "psf"), "x"), [(0, ("psf",)), (1, ())]),
        (((0, "psf"),), [(0, ("psf",))]),
        (((0,), (1,)), [(0, ()), (1, ())]),
        (("params", "params"), [(0, ()), (0, ())]),
    ],
    ids=repr,
)
def test_several_entries(wrt: Any, entries: list[tuple[Any, Any]]) -> None:
    asked = read(wrt)
    assert list(asked.entries) == entries
    assert asked.several


def test_positions_of_containers_are_positions() -> None:
    # (0, 1) never means the second item of the first argument.
    assert read((0, 1), args=([1.0, 2.0], 3.0)).entries == ((0, ()), (1, ()))


def test_a_tuple_of_strs_with_two_readings_is_refused() -> None:
    args = ({"x": 1.0}, 2.0)
    with pytest.raises(WrtError) as caught:
        read(("params", "x"), args=args)
    text = str(caught.value)
    for part in ["two ways", "the arguments params, x", "as params.x", "(('params',), ('x',))", "'params.x'"]:
        assert part in text
    assert read((("params",), ("x",)), args=args).entries == ((0, ()), (1, ()))
    assert read("params.x", args=args).entries == ((0, ("x",)),)
    assert read((("params", "x"),), args=args).entries == ((0, ("x",)),)


def test_keywords_and_defaults() -> None:
    asked = parse_wrt(("x", "scale", "bias"), signature_of(f), (1.0,), {"x": 2.0})
    assert asked.entries == (("x", ()), ("scale", ()), ("bias", ()))
    assert asked.args == (1.0,)
    assert asked.kwargs == {"x": 2.0, "scale": 2.0, "bias": 0.5}
    assert [asked.value(entry.argument) for entry in asked.entries] == [2.0, 2.0, 0.5]


def test_a_position_that_was_passed_by_keyword_or_not_at_all() -> None:
    asked = parse_wrt((1, 2), signature_of(f), (1.0,), {"x": 2.0})
    assert asked.entries == (("x", ()), ("bias", ()))
    assert asked.kwargs == {"x": 2.0, "bias": 0.5}


def test_positional_only_defaults_are_filled_in_place() -> None:
    asked = parse_wrt("b", signature_of(first), (1.0,), {"c": 3.0})
    assert asked.entries == ((1, ()),)
    assert (asked.args, asked.kwargs) == ((1.0, 7.0), {"c": 3.0})


def test_variadic_functions() -> None:
    asked = read((2, 0), several, (1.0, 2.0, 3.0))
    assert asked.entries == ((2, ()), (0, ()))
    assert asked.text(2, ("w",)) == "argument 2.w"
    assert read("k.0", several, (), k=[1.0]).entries == (("k", (0,)),)
    with pytest.raises(WrtError, match="'xs' collects arguments; ask for them by position"):
        read("xs", several, (1.0,))


def test_functions_without_a_signature() -> None:
    assert signature_of(min) is None
    assert parse_wrt(-1, None, (1.0, 2.0), {}).entries == ((1, ()),)
    assert parse_wrt("k", None, (1.0,), {"k": 2.0}).entries == (("k", ()),)
    with pytest.raises(WrtError, match="no argument 'x'"):
        parse_wrt("x", None, (1.0,), {})


@pytest.mark.parametrize(
    ("wrt", "message"),
    [
        (5, "no argument at position 5.*\n.*Existing positions: 0, 1, 2"),
        (-3, "no argument at position -3"),
        ("z", "no argument 'z'.*\n.*Existing names: params, x, bias, scale"),
        ("z.psf", "no argument 'z'"),
        ("params.z", "no 'z' in params \\(dict\\).*\n.*Existing keys in params: psf, layers"),
        ("params.layers.2", "no '2' in params.layers \\(list\\)"),
        ("params.layers.w", "no 'w' in params.layers \\(list\\).*\n.*: 0, 1"),
        ("params..psf", "no '' in params"),
        ("x.real", "x is a leaf \\(float\\)"),
        (("params", "z"), "no 'z' in params"),
        (("params", "psf", 0), "params.psf is a leaf"),
        (("z", "params"), "no argument 'z'"),
        (("x", "z.q", "params"), "no argument 'z'"),
        ((0, "z"), "no 'z' in params"),
        ((9, "z"), "no argument at position 9"),
        ((), "asks for nothing"),
        ((0, ()), "an empty tuple names nothing"),
        (None, "None is a NoneType"),
        (1.0, "1.0 is a float"),
        (True, "True is a bool"),
        ((None, "x"), "None is a NoneType"),
        ([0, 1], "is a list.*\n.*Use a position"),
    ],
    ids=repr,
)
def test_errors_say_what_exists(wrt: Any, message: str) -> None:
    with pytest.raises(WrtError, match=message) as caught:
        read(wrt)
    assert "wrt=" in str(caught.value)


def test_an_argument_that_was_not_passed() -> None:
    with pytest.raises(WrtError, match="'x' was not passed and has no default"):
        parse_wrt("x", signature_of(f), (1.0,), {})


def test_overlapping_entries_share_leaves() -> None:
    asked = read(("params", "params.psf", "x", "params.layers.0"))
    listed, indices = asked_leaves(asked)
    assert [leaf.value for leaf in listed] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 9.0, 10.0, 1.4, 11.0]
    assert indices == [list(range(10)), [0], [10], [1]]
    assert listed[1].text == "params.layers[0].w"
    assert listed[4].text == "params[7]"


def test_substitute_touches_only_what_is_asked() -> None:
    asked = parse_wrt(("params.layers.0.w", "scale"), signature_of(f), (PARAMS, 11.0), {"scale": [1.0, 2.0]})
    listed, _ = asked_leaves(asked)
    args, kwargs = substitute(asked, listed, ["w", "s0", "s1"])
    assert args[1] is asked.args[1]
    assert args[0]["layers"] == [{"w": "w"}, {"w": 3.0}]
    assert args[0] == PARAMS | {"layers": args[0]["layers"]}
    assert kwargs == {"scale": ["s0", "s1"]}
    assert PARAMS["layers"] == [{"w": 2.0}, {"w": 3.0}]
    assert asked.kwargs == {"scale": [1.0, 2.0]}


TREES = st.recursive(
    st.floats(allow_nan=False),
    lambda t: (
        st.lists(t, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), t, max_size=3)
        | st.builds(Pair, t, t)
    ),
    max_leaves=8,
)


@given(TREES, TREES, st.data())
def test_every_path_can_be_asked_for_and_answered(one: Any, other: Any, data: st.DataObject) -> None:
    args = (one, other)
    wholes = [(i, *path) for i in (0, 1) for path in paths(args[i])]
    inner = [path[:cut] for path in wholes for cut in range(1, len(path) + 1)] or [(0,)]
    wrt = tuple(data.draw(st.lists(st.sampled_from(inner), min_size=1, max_size=4)))
    asked = parse_wrt(wrt, None, args, {})
    assert asked.several
    assert [(entry.argument, *entry.path) for entry in asked.entries] == list(wrt)
    listed, indices = asked_leaves(asked)
    assert len({(leaf.argument, leaf.path) for leaf in listed}) == len(listed)
    for entry, row in zip(asked.entries, indices, strict=True):
        part = select(args[int(entry.argument)], entry.path)
        assert rebuild(part, [listed[i].value for i in row]) == part
    new_args, _ = substitute(asked, listed, [-1.5 * i for i in range(len(listed))])
    changed = {(leaf.argument, leaf.path): -1.5 * i for i, leaf in enumerate(listed)}
    for i in (0, 1):
        expected = [changed.get((i, p), v) for p, v in zip(paths(args[i]), leaves(args[i]), strict=True)]
        assert leaves(new_args[i]) == expected
