"""What a function reads besides its arguments: found, named, compared by bits."""

from __future__ import annotations

import functools
import sys
import types
from collections import deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import nbad
from nbad.hidden import Draws, Hidden, _Entropy
from nbad.sameness import same


def make(source: str, **names: Any) -> dict[str, Any]:
    """Run a piece of a user's module and return its globals."""
    scope: dict[str, Any] = {"np": np, "__name__": "a_module_of_the_user", **names}
    exec(compile(source, "user.py", "exec"), scope)
    return scope


@pytest.fixture
def settings() -> Iterator[types.ModuleType]:
    module = types.ModuleType("settings_of_the_user")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def test_nothing_changes_by_itself() -> None:
    scope = make("def f(x): return np.sum(psf * x) + len(name)", psf=np.ones(3), name="a")
    hidden = Hidden.of(scope["f"])
    assert hidden.changed() is None
    assert hidden.matches()


@pytest.mark.parametrize(
    ("before", "after", "differs"),
    [
        (2.0, 3.0, True),
        (0.0, -0.0, True),
        (float("nan"), float("nan"), False),
        (1, 1.0, True),
        (1, True, True),
        (1j, complex(0.0, 1.0), False),
        (complex(0.0, 1.0), complex(-0.0, 1.0), True),
        ("ortho", "".join(["or", "tho"]), False),
        (b"a", b"b", True),
        (None, 0, True),
        (np.float64(2), np.float64(2), False),
        (np.float64(2), np.float32(2), True),
        (np.float64(0.0), np.float64(-0.0), True),
        ((1.0, "a"), (1.0, "a"), False),
        ((1.0, "a"), (1.0, "b"), True),
        ([0.0], [-0.0], True),
        ([1, [2, 3]], [1, [2, 3]], False),
        ([1, [2, 3]], [1, [2, 4]], True),
        ({"a": 1.0}, {"a": 1.0}, False),
        ({"a": 1.0}, {"b": 1.0}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({1, 2}, {2, 1}, False),
        ({0.0}, {-0.0}, True),
        (slice(1, 2), slice(1, 2), False),
        (slice(0.0, 2), slice(-0.0, 2), True),
        (range(3), range(3), False),
        (deque([1]), deque([1]), False),
        (object(), object(), True),
        (np.ones(3), np.ones(3), True),
    ],
)
def test_a_global_is_compared_by_type_and_bits(before: Any, after: Any, differs: bool) -> None:
    scope = make("def f(x): return x, value", value=before)
    hidden = Hidden.of(scope["f"])
    scope["value"] = after
    assert hidden.changed() == ("the global value" if differs else None)
    scope["value"] = before
    assert hidden.changed() is None


def test_a_deleted_global_and_one_that_hides_a_builtin() -> None:
    scope = make("def f(x): return alpha * sum(x)", alpha=1.0)
    hidden = Hidden.of(scope["f"])
    scope["sum"] = max
    assert hidden.changed() == "the global sum"
    del scope["sum"], scope["alpha"]
    assert hidden.changed() == "the global alpha"


def test_arrays_are_read_as_a_whole() -> None:
    scope = make("def f(x): return psf * x", psf=np.zeros((40, 50)))
    hidden = Hidden.of(scope["f"])
    scope["psf"][3, 4] = -0.0
    assert hidden.changed() == "the global psf"
    scope["psf"][3, 4] = 0.0
    assert hidden.changed() is None
    scope["psf"].resize((50, 40), refcheck=False)
    assert hidden.changed() == "the global psf"


def test_a_view_sees_writes_through_its_base() -> None:
    base = np.zeros(9)
    scope = make("def f(x): return psf * x", psf=base[::2])
    hidden = Hidden.of(scope["f"])
    base[1] = 1.0
    assert hidden.changed() is None
    base[2] = 1.0
    assert hidden.changed() == "the global psf"


def test_fingerprints_are_shared_between_snapshots() -> None:
    psf = np.zeros(5000)
    f = make("def f(x): return psf * x", psf=psf)["f"]
    first, second = Hidden.of(f), Hidden.of(f)
    psf[0] = 1.0
    known: dict[int, tuple[int, int]] = {}
    assert not first.matches(known)
    psf[0] = 0.0  # not looked at again within one moment
    assert not second.matches(known)
    assert second.matches({})


def test_closures_defaults_and_inner_functions() -> None:
    scale, weights, power = 2.0, np.ones(3), 2

    def helper(x: Any) -> Any:
        return x**power

    def outer(x: Any, offset: Any = weights, *, key: Any = (1.0, [3.0])) -> Any:
        inner: Callable[[Any], Any] = lambda t: [helper(scale * t + offset) for _ in range(2)]  # noqa: E731
        return inner(x), key

    hidden = Hidden.of(outer)
    scale = 3.0
    assert hidden.changed() == "the closure variable scale"
    scale = 2.0
    power = 3
    assert hidden.changed() == "the closure variable power"
    power = 2
    weights[1] = 5.0
    assert hidden.changed() == "the defaults of outer[0]"
    weights[1] = 1.0
    outer.__kwdefaults__["key"][1][0] = 4.0
    assert hidden.changed() == "the defaults of outer['key'][1]"
    outer.__kwdefaults__["key"][1][0] = 3.0
    assert hidden.changed() is None
    outer.__defaults__ = (weights,)
    assert hidden.changed() == "the function outer"


def test_a_cell_that_is_filled_or_emptied() -> None:
    scope = make(
        "def maker():\n"
        "    def fill(value):\n"
        "        nonlocal late\n"
        "        late = value\n"
        "    def empty():\n"
        "        nonlocal late\n"
        "        del late\n"
        "    def f(x): return x * late\n"
        "    late = 1.0\n"
        "    del late\n"
        "    return f, fill, empty"
    )
    f, fill, empty = scope["maker"]()
    hidden = Hidden.of(f)
    assert hidden.changed() is None
    fill(1.0)
    assert hidden.changed() == "the closure variable late"
    hidden = Hidden.of(f)
    assert hidden.changed() is None
    empty()
    assert hidden.changed() == "the closure variable late"


def test_functions_are_compared_by_code_and_what_they_close_over() -> None:
    source = "def maker(k):\n    return lambda x: k * x\ndef f(x): return g(x)"
    scope = make(source)
    scope["g"] = scope["maker"](2.0)
    hidden = Hidden.of(scope["f"])
    scope["g"] = scope["maker"](2.0)
    assert hidden.changed() is None
    scope["g"] = scope["maker"](3.0)
    assert hidden.changed() == "the global g"
    scope["g"] = np.sin
    assert hidden.changed() == "the global g"


def test_code_that_is_replaced() -> None:
    scope = make("def g(x): return x\ndef h(x): return -x\ndef f(x): return g(x)")
    hidden = Hidden.of(scope["f"])
    scope["g"].__code__ = scope["h"].__code__
    assert hidden.changed() == "the function g"


def test_partial_wraps_and_decorators() -> None:
    scope = make(
        "import functools\n"
        "def twice(g):\n"
        "    @functools.wraps(g)\n"
        "    def inner(x): return g(g(x))\n"
        "    return inner\n"
        "@twice\n"
        "def g(x): return alpha * x\n"
        "p = functools.partial(g, w)\n"
        "def f(x): return p()",
        alpha=1.0,
        w=np.ones(2),
    )
    hidden = Hidden.of(scope["f"])
    assert Hidden.of(functools.partial(scope["f"], 1.0)).changed() is None
    scope["alpha"] = 2.0
    assert hidden.changed() == "the global alpha"
    scope["alpha"] = 1.0
    scope["w"][0] = 2.0
    assert hidden.changed() is not None


class Blur:
    gain = 1.0

    def __init__(self, psf: Any) -> None:
        self.psf = psf
        self.calls = 0
        self.unread = 0

    def apply(self, x: Any) -> Any:
        self.calls = 1
        return self.psf * x * self.gain

    @property
    def size(self) -> Any:
        return len(self.psf) * FACTOR

    def __call__(self, x: Any) -> Any:
        return self.apply(x)

    def loss(self, x: Any) -> Any:
        return np.sum(self.apply(x)) / self.size


FACTOR = 2.0


def test_bound_methods_and_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    blur = Blur(np.ones(3))
    hidden = Hidden.of(blur.loss)
    blur.unread = 5
    assert hidden.changed() is None
    blur.psf[0] = 2.0
    assert hidden.changed() == "self.psf"
    blur.psf[0] = 1.0
    assert hidden.changed() is None
    blur.gain = 2.0  # now hides the attribute of the class
    assert hidden.changed() == "self.gain"
    del blur.gain
    monkeypatch.setattr(Blur, "gain", 3.0)
    assert hidden.changed() == "self.gain"
    monkeypatch.undo()
    assert hidden.changed() is None
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3.0)
    assert hidden.changed() == "the global FACTOR"
    monkeypatch.undo()
    blur.__dict__ = dict(blur.__dict__)
    assert hidden.changed() is not None


def test_an_object_that_is_called() -> None:
    blur = Blur(np.ones(3))
    for function in (blur, make("def f(x): return blur(x)", blur=blur)["f"]):
        hidden = Hidden.of(function)
        assert hidden.changed() is None
        blur.psf[1] = 2.0
        assert str(hidden.changed()).endswith(".psf")
        blur.psf[1] = 1.0


def test_slots_dataclasses_and_named_tuples() -> None:
    @dataclass
    class Data:
        w: Any
        b: float

    @dataclass(slots=True)
    class Slim:
        w: Any
        b: float

    pair = namedtuple("pair", "w b")
    for cls in (Data, Slim, pair):
        held = cls(np.ones(2), 1.0)
        scope = make("def f(x): return x * held.w + held.b", held=held)
        hidden = Hidden.of(scope["f"])
        assert hidden.changed() is None
        held.w[0] = 2.0
        assert str(hidden.changed()).startswith("held")
        held.w[0] = 1.0
        assert hidden.changed() is None
        if cls is not pair:
            held.b = 2.0
            assert hidden.changed() == "held.b"


def test_settings_in_a_module_a_class_and_a_namespace(settings: types.ModuleType) -> None:
    class Options:
        alpha = 1.0
        unread = 1.0

    for holder in (settings, Options, types.SimpleNamespace()):
        holder.alpha = 1.0
        f = make("def f(x): return x * holder.alpha", holder=holder)["f"]
        hidden = Hidden.of(f)
        holder.unread = 2.0
        assert hidden.changed() is None
        holder.alpha = 2.0
        assert hidden.changed() == "holder.alpha"


def test_a_module_imported_inside(settings: types.ModuleType) -> None:
    settings.beta = 1.0  # type: ignore[attr-defined]
    f = make("def f(x):\n    from settings_of_the_user import beta\n    return x * beta")["f"]
    hidden = Hidden.of(f)
    settings.beta = 2.0  # type: ignore[attr-defined]
    assert hidden.changed() == "settings_of_the_user.beta"


def test_attributes_by_a_computed_name() -> None:
    held = types.SimpleNamespace(alpha=1.0)
    f = make("def f(x): return x * getattr(held, 'al' + 'pha') if hasattr(held, 'on') else x", held=held)["f"]
    hidden = Hidden.of(f)
    held.alpha = 2.0
    assert hidden.changed() == "held.alpha"
    held.alpha = 1.0
    assert hidden.changed() is None
    held.on = True
    assert hidden.changed() == "held"


def test_containers_are_followed() -> None:
    params: dict[str, Any] = {"layers": [{"w": np.ones(2)}], "scale": [1.0, 2.0]}
    hidden = Hidden.of(make("def f(x): return x, params", params=params)["f"])
    params["layers"][0]["w"][0] = 2.0
    assert hidden.changed() == "params['layers'][0]['w']"
    params["layers"][0]["w"][0] = 1.0
    params["scale"][0] = 1
    assert hidden.changed() == "params['scale']"
    params["scale"][0] = 1.0
    assert hidden.changed() is None
    params["more"] = 1
    assert hidden.changed() == "the global params"


def test_arrays_of_objects_and_buffers() -> None:
    held = np.array([1.0, np.ones(2), "a"], dtype=object)
    raw = bytearray(b"abc")
    hidden = Hidden.of(make("def f(x): return held, raw", held=held, raw=raw)["f"])
    assert hidden.changed() is None
    raw[0] = 0
    assert hidden.changed() == "the global raw"
    raw[0] = ord("a")
    held[1][0] = 2.0
    assert hidden.changed() == "held[1]"
    held[1][0] = 1.0
    held[0] = 2.0
    assert hidden.changed() == "the global held"


def test_libraries_are_not_entered() -> None:
    def f(x: Any) -> Any:
        return np.linalg.norm(np.fft.fft(x)) + functools.reduce(max, x)

    # One entry for each of the names np, functools and max, and the function itself.
    assert len(Hidden.of(f)) == 4


def test_through_transformations_of_nbad() -> None:
    scope = make("def g(x): return alpha * x\nh = nbad.grad(g)\ndef f(x): return h(x)", alpha=1.0, nbad=nbad)
    hidden = Hidden.of(scope["f"])
    scope["alpha"] = 2.0
    assert hidden.changed() == "the global alpha"


def test_what_the_function_changes_is_left_out() -> None:
    scope = make(
        "def f(x):\n"
        "    global count, cache\n"
        "    count += 1\n"
        "    history.append(count)\n"
        "    cache = np.ones(3)\n"
        "    return x * alpha",
        count=0,
        history=[],
        cache=None,
        alpha=1.0,
    )
    before = Hidden.of(scope["f"])
    scope["f"](1.0)
    assert before.changed() is not None
    hidden = before.stable()
    assert hidden.changed() is None
    assert set(hidden.dropped) == {"the global count", "the global history"}
    scope["f"](1.0)
    assert hidden.changed() is None
    scope["alpha"] = 2.0
    assert hidden.changed() == "the global alpha"


class Odd:
    """An object that resists whatever is tried with it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __len__(self) -> int:
        raise RuntimeError("len")

    def __bool__(self) -> bool:
        raise RuntimeError("bool")


def test_objects_that_resist() -> None:
    odd = Odd()
    objects = np.empty(2, dtype=object)
    objects[0] = odd
    held = [odd, {"a": odd}, (odd,), objects]
    scope = make("def f(x): return x, held, odd, odd.psf", held=held, odd=odd)
    hidden = Hidden.of(scope["f"])
    assert hidden.changed() is None
    assert hidden.stable().dropped == ()
    scope["odd"] = Odd()
    assert hidden.changed() == "the global odd"
    assert Hidden.of(odd).changed() is None  # type: ignore[arg-type]


def test_cycles_and_depth() -> None:
    cycle: list[Any] = [1.0]
    cycle.append(cycle)
    deep: Any = [1.0]
    bottom = deep
    for _ in range(20_000):
        deep = [deep]
    scope = make("def f(x): return f, cycle, deep", cycle=cycle, deep=deep)
    hidden = Hidden.of(scope["f"])
    assert hidden.changed() is None
    bottom[0] = 2.0
    assert hidden.changed() is not None
    bottom[0] = 1.0
    other: list[Any] = [1.0]
    other.append(other)
    scope["cycle"] = other
    assert hidden.changed() is None
    other[0] = 2.0
    assert hidden.changed() == "the global cycle"


def test_equal_things_of_any_depth() -> None:
    first: Any = ()
    second: Any = ()
    for _ in range(20_000):
        first, second = (first,), (second,)
    assert same(first, second)
    assert not same(first, (second,))


@pytest.mark.parametrize("kind", ["generator", "method", "state", "global", "python", "argument"])
def test_drawn_numbers_are_noticed(kind: str) -> None:
    rng = np.random.default_rng(1)
    old = np.random.RandomState(1)
    body = {
        "generator": "rng.normal()",
        "method": "normal()",
        "state": "old.rand()",
        "global": "np.random.rand()",
        "python": "random.random()",
        "argument": "x.normal()",
    }[kind]
    scope = make(f"import random\ndef f(x): return {body}", rng=rng, normal=rng.normal, old=old)
    given = np.random.default_rng(2)
    hidden = Hidden.of(scope["f"])
    draws = Draws.of(hidden, (given, 1.0))
    assert draws.made() is None
    scope["f"](given)
    assert hidden.changed() is None
    assert (
        draws.made()
        == {
            "generator": "the global rng",
            "method": "self",
            "state": "the global old",
            "global": "np.random",
            "python": "random",
            "argument": "a generator among the arguments",
        }[kind]
    )


@pytest.mark.parametrize("body", ["np.random.default_rng().random()", "np.random.RandomState().rand()"])
def test_generators_without_a_seed_are_noticed(body: str) -> None:
    source = _Entropy.source
    draws, other = Draws(), Draws()
    with draws.watched(), other.watched():
        np.random.default_rng(3).random()
    assert draws.made() is None
    with draws.watched():
        with other.watched():
            eval(body)
        assert np.random.bit_generator.randbits is not source
    assert draws.made() == other.made() == "a generator without a seed"
    assert np.random.bit_generator.randbits is source


def test_a_watcher_that_was_interrupted_is_not_waited_for() -> None:
    lost = Draws()
    _Entropy.watchers.add(lost)  # and Ctrl-C before the rest of `watched`
    with Draws().watched():
        pass
    assert np.random.bit_generator.randbits is not _Entropy.source
    del lost
    with Draws().watched():
        pass
    assert np.random.bit_generator.randbits is _Entropy.source
