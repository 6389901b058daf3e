"""The op table: what its rows say about rules, and that every row is tested."""

import importlib
import importlib.util
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from laws import Case, Taped, cotangent_like

import nbad
import nbad.rules
from nbad.constants import ROUND
from nbad.errors import RuleError
from nbad.table import BINDINGS, CONSTANT, TABLE, UFUNCS, Op, elementwise, operation
from nbad.ufuncs import METHODS

HERE = Path(__file__).parent

#: Rows that no case can reach: they exist for the machinery, not for a NumPy function.
STRUCTURAL: dict[str, str] = {
    "number": "the gradient with respect to a Python number, in a compiled function",
}
#: Rows without any pullback.
NON_DIFFERENTIABLE: dict[str, str] = {
    "spectrum": "a part of `filter`, which compiled programs take apart after differentiation",
    "spectra_product": "as `spectrum`",
    "filter_keeping": "as `spectrum`",
    "convert": "casts to integers and truth values",
    "frexp_exponent": "integers",
    "stop_gradient": "what it is for",
    "sign": "of real numbers",
    "nan_to_num": "the numbers that stand for nan and infinities",
    "delete": "of places, which are integers",
    "insert": "as `delete`",
    "repeat_each": "as `delete`",
    "bincount": "without weights",
    "matrix_rank": "a whole number; refused where a derivative would be lost",
    "unwrap": "of integers",
    "heaviside": "its step; the value at the step passes its derivative on",
    "quantile": "weighted, of plain values: which elements are the quantiles",
    "nanquantile": "as `quantile`",
    "histogram_bin_edges": "how many, and whether they are in order",
    "winners": "which of several writes to one place is the last",
}
#: NumPy's ufuncs that have no meaning for numbers.
WITHOUT_MEANING = {
    "isnat": "of dates",
}


def rule_modules() -> Iterator[ModuleType]:
    """Yield the modules of rules."""
    for found in pkgutil.iter_modules(nbad.rules.__path__):
        yield importlib.import_module(f"nbad.rules.{found.name}")


def built_in() -> dict[str, Op]:
    """Return the rows of the rule modules by name."""
    rows: dict[str, Op] = {}
    for module in rule_modules():
        for value in vars(module).values():
            if isinstance(value, Op):
                assert rows.get(value.name, value) is value, f"two rows are named {value.name}"
                rows[value.name] = value
    return rows


def all_cases() -> Iterator[Case]:
    """Yield the cases of tests/rules."""
    for file in sorted((HERE / "rules").glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"cases_of_{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield from getattr(module, "CASES", ())


def nested(case: Case, args: list[Any], wrt: tuple[int, ...]) -> Callable[..., Any]:
    """Return the pullback of a case as a function of its arguments: what the law on second order records."""
    w = cotangent_like(case.function(*args))

    def first(*args: Any) -> Any:
        _, pullback = nbad.vjp(case.function, *args, wrt=tuple((k,) for k in wrt))
        return pullback(w)

    return first


def exercised() -> set[tuple[int, str]]:
    """Return (opcode, operand) of every pullback that the laws check in some case."""
    found: set[tuple[int, str]] = set()
    for case in all_cases():
        for dtype in {case.dtypes[0], case.dtypes[-1]}:
            args, wrt = case.draw(dtype)
            functions = [case.function] if "second" in case.off else [case.function, nested(case, args, wrt)]
            for function in functions:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the laws themselves see them
                    taped = Taped(function, args, wrt)
                for node, k in taped.needed(frozenset(range(len(wrt)))):
                    op = taped.op(node)
                    found.add((op.opcode, op.operands[0 if op.variadic else k]))
    return found


def test_every_row_is_tested_or_says_why_not() -> None:
    rows, seen = built_in(), exercised()
    assert len(rows) > 50
    tested, missing = set(), {}
    for name, op in rows.items():
        pullbacks = {
            operand
            for operand, pullback in zip(op.operands, op.pullbacks, strict=True)
            if pullback is not None
        }
        found = {operand for operand in pullbacks if (op.opcode, operand) in seen}
        if found:
            tested.add(name)
        if pullbacks != found and name not in STRUCTURAL:
            missing[name] = sorted(pullbacks - found)
        assert bool(pullbacks) != (name in NON_DIFFERENTIABLE), name
    assert missing == {}, f"no case in tests/rules reaches these pullbacks: {missing}"
    assert tested & set(STRUCTURAL) == set(), "tested after all"
    assert set(STRUCTURAL) | set(NON_DIFFERENTIABLE) <= set(rows), "rows that do not exist"


def test_rows_without_pullbacks_are_those_of_functions_without_derivative() -> None:
    constant = [op for op in CONSTANT.values() if op is not None] + list(METHODS.values())
    assert [op.name for op in constant if not op.constant] == []
    known = {op.opcode for op in constant} | {op.opcode for op in built_in().values()} | {ROUND.opcode}
    assert [
        op.name for op in TABLE if op.constant and op.opcode not in known and is_of_nbad(op.forward)
    ] == []


def is_of_nbad(forward: Any) -> bool:
    """Tell whether a row was made by nbad itself, not by a test."""
    return (getattr(forward, "__module__", None) or "").startswith("nbad.")


def test_every_row_belongs_to_a_name_of_a_rule_module() -> None:
    named = {op.opcode for op in built_in().values()}
    nameless = [
        op.name
        for op in TABLE
        if op.opcode not in named
        and not op.name.startswith("scipy.")  # some of them have the rules of NumPy's functions
        and any(p is not None and (p.rule.__module__ or "").startswith("nbad.rules.") for p in op.pullbacks)
    ]
    assert nameless == []


def test_every_ufunc_has_one_place() -> None:
    list(rule_modules())
    wrong = {}
    for name in dir(np):
        ufunc = getattr(np, name)
        if isinstance(ufunc, np.ufunc):
            places = [
                place
                for place, names in (("rows", UFUNCS), ("bindings", BINDINGS), ("constant", CONSTANT))
                if ufunc in names
            ]
            if ufunc.__name__ in WITHOUT_MEANING:
                places.append("without meaning")
            if len(places) != 1:
                wrong[name] = places
    assert wrong == {}


def test_no_function_is_both_bound_and_constant() -> None:
    list(rule_modules())
    assert [f for f in CONSTANT if f in BINDINGS or f in UFUNCS] == []


def test_opcodes_are_positions() -> None:
    assert [op.opcode for op in TABLE] == list(range(len(TABLE)))


# What a row says ----------------------------------------------------------------------------------
def product_forward(a: Any, b: Any, *, power: int) -> Any:
    return (a * b) ** power


def product_a(g: Any, b: Any, y: Any, power: Any) -> Any:
    return g


def product_b(g: Any, a_shape: Any, a_dtype: Any, y_shape: Any) -> Any:
    return g


def both(a: Any, b: Any) -> Any:
    return a * b


def of_g(g: Any, both: Any) -> Any:
    return g * both


def by_both(both: Any) -> Any:
    return both


def by_of_g(of_g: Any) -> Any:
    return of_g


def test_a_rule_says_what_it_reads() -> None:
    op = operation(product_forward, a=product_a, b=product_b)
    assert (op.name, op.operands, op.attributes) == ("product", ("a", "b"), ("power",))
    first, second = op.pullbacks
    assert first is not None
    assert second is not None
    assert [(r.kind, r.index) for r in first.reads] == [
        ("g", -1),
        ("operand", 1),
        ("y", -1),
        ("attribute", 0),
    ]
    assert [(r.kind, r.index) for r in second.reads] == [("g", -1), ("shape", 0), ("dtype", 0), ("shape", -1)]
    assert (op.keep(0b01).operands, op.keep(0b01).output) == ((1,), True)
    assert (op.keep(0b10).operands, op.keep(0b10).output) == ((), False)
    assert op.keep(0b11) == op.keep(0b01)


def test_shared_values_are_made_when_all_they_read_is_there() -> None:
    op = operation(product_forward, shared={"both": both, "of_g": of_g}, a=by_both, b=by_of_g)
    assert [row.at_forward for row in op.shared] == [True, False]
    assert op.hidden == (0,)
    # The one that reads g is made in the sweep; what it reads is kept for it.
    assert op.keep(0b01).shared == (0,)
    assert op.keep(0b10).shared == (0,)
    assert op.keep(0b11).operands == ()


def variadic_forward(*xs: Any) -> Any:
    return xs[0]


def variadic_xs(g: Any, k: Any, others: Any) -> Any:
    return g


def test_variadic_rows_keep_what_others_read() -> None:
    op = operation(variadic_forward, xs=variadic_xs)
    assert op.variadic
    assert op.keep_variadic([1], 3).operands == (0, 2)
    assert op.keep_variadic([0, 1], 3).operands == (0, 1, 2)


def reads_unknown(g: Any, c: Any) -> Any:
    return g


def reads_everything(g: Any, *rest: Any) -> Any:
    return g


def reserved_forward(g: Any) -> Any:
    return g


def no_operand_forward() -> Any:
    return 0


def keywords_forward(a: Any, **options: Any) -> Any:
    return a


def mixed_forward(a: Any, *xs: Any) -> Any:
    return a


def reads_g_forward(a: Any, b: Any, *, of_g: Any) -> Any:
    return a


BAD: list[tuple[str, Callable[[], Any]]] = [
    ("names nothing here; it may read", lambda: operation(product_forward, a=reads_unknown)),
    ("which is not an operand", lambda: operation(product_forward, c=product_a)),
    ("parameters name what a rule reads", lambda: operation(product_forward, a=reads_everything)),
    ("reserved", lambda: operation(reserved_forward)),
    ("reserved", lambda: elementwise(np.negative, g=product_a)),
    ("no operand", lambda: operation(no_operand_forward)),
    ("spell the attributes out", lambda: operation(keywords_forward)),
    ("not fixed operands before it", lambda: operation(mixed_forward)),
    ("reserved", lambda: operation(product_forward, shared={"y": both})),
    ("stands after it", lambda: operation(product_forward, shared={"of_g": of_g, "both": both})),
    ("reads g or y", lambda: operation(reads_g_forward, shared={"both": both, "of_g": of_g})),
    ("only a pullback has", lambda: operation(variadic_forward, shared={"others_too": variadic_xs})),
]


@pytest.mark.parametrize(("message", "make"), BAD, ids=[str(i) + " " + m for i, (m, _) in enumerate(BAD)])
def test_wrong_rules_are_refused_and_leave_the_table_alone(message: str, make: Callable[[], Any]) -> None:
    before = len(TABLE)
    with pytest.raises(RuleError, match=message):
        make()
    assert len(TABLE) == before


def test_a_ufunc_keeps_its_first_row() -> None:
    before = UFUNCS[np.sin]

    def sin_x(g: Any) -> Any:
        return g

    elementwise(np.sin, name="another", x=sin_x)
    assert UFUNCS[np.sin] is before
