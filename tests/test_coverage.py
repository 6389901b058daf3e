"""The table of coverage: every function of NumPy's lists has a state, and is what the table says."""

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cases import all_cases

import nbad
from nbad.refusals import REASONS, reason_of
from nbad.trace import Traced

DOCS = Path(nbad.__file__).parents[1] / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_coverage", DOCS / "generate_coverage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COVERAGE = generator()
KNOWN: dict[str, Callable[..., Any]] = COVERAGE.known()


def of_state(state: str) -> list[str]:
    return [name for name, function in KNOWN.items() if COVERAGE.state_of(function) == state]


def test_every_function_of_numpys_lists_has_a_state() -> None:
    assert len(KNOWN) > 400
    assert [name for name, function in KNOWN.items() if COVERAGE.state_of(function) is None] == []


def test_the_reasons_are_of_functions_without_a_rule() -> None:
    refused = {KNOWN[name] for name in of_state(COVERAGE.REFUSED)}
    found = {f"{f.__module__}.{f.__name__}" for f in refused if not isinstance(f, np.ufunc)}
    modules = {f.__module__ for f in refused if not isinstance(f, np.ufunc)}
    # What no function of this NumPy bears is a stale entry, or a ufunc, or of another version.
    versions = {"numpy.in1d", "numpy.strings", "numpy.polynomial.polynomial"}
    assert {name for name in REASONS if name not in found | modules} <= {"numpy.isnat"} | versions


class Spy:
    """What NumPy hands over to traced values, from outside of nbad."""

    def __init__(self) -> None:
        self.seen: set[Any] = set()
        self.depth = 0

    def around(self, protocol: Callable[..., Any]) -> Callable[..., Any]:
        def handed(traced: Traced, function: Any, *args: Any, **kwargs: Any) -> Any:
            if self.depth == 0:
                self.seen.add(function)
            self.depth += 1
            try:
                return protocol(traced, function, *args, **kwargs)
            finally:
                self.depth -= 1

        return handed


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spy]:
    found = Spy()
    for protocol in ("__array_ufunc__", "__array_function__"):
        monkeypatch.setattr(Traced, protocol, found.around(getattr(Traced, protocol)))
    yield found


@pytest.mark.filterwarnings("ignore")
def test_a_case_calls_every_differentiable_function(spy: Spy) -> None:
    for parameters in all_cases():
        case, dtype = parameters.values
        args, wrt = case.draw(dtype)
        nbad.vjp(case.function, *args, wrt=tuple((k,) for k in wrt))
    assert [name for name in of_state(COVERAGE.SUPPORTED) if KNOWN[name] not in spy.seen] == []


@pytest.mark.parametrize("name", of_state(COVERAGE.REFUSED))
def test_what_is_refused_raises_with_its_reason(name: str) -> None:
    function = KNOWN[name]

    def loss(x: Any) -> Any:
        return function(*[x] * arguments_of(function))

    with pytest.raises(nbad.NoRuleError) as caught:
        nbad.vjp(loss, np.ones(3))
    reason = reason_of(function)
    assert reason
    assert reason in str(caught.value)
    assert function.__name__ in str(caught.value)


def arguments_of(function: Callable[..., Any]) -> int:
    """Return with how many positional arguments a function can be called: two, unless it needs more or takes fewer."""
    if isinstance(function, np.ufunc):
        return function.nin
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # in C, without a signature
        return 2
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = sum(p.default is p.empty for p in positional)
    many = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return max(needed, 2 if many else min(2, len(positional)))


def rows_of(page: str) -> dict[str, str]:
    found = {}
    for line in page.splitlines():
        if line.startswith("| `"):
            name, _, rest = line.strip("| ").partition(" | ")
            found[name.strip("`")] = rest
    return found


def test_the_page_is_not_stale() -> None:
    now, then = (
        rows_of(COVERAGE.page()),
        rows_of((DOCS / "reference" / "coverage.md").read_text(encoding="utf-8")),
    )
    # Other versions of NumPy have a few functions more or fewer.
    both = now.keys() & then.keys()
    assert len(both) > 400
    assert {name: now[name] for name in both} == {name: then[name] for name in both}, (
        "run: python docs/generate_coverage.py"
    )
    if f"NumPy {'.'.join(np.__version__.split('.')[:2])} " in (DOCS / "reference" / "coverage.md").read_text(
        "utf-8"
    ):
        assert now.keys() == then.keys(), "run: python docs/generate_coverage.py"
