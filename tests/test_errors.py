"""Every message says what happened, where, and what to do."""

import pickle

import numpy as np
import pytest

from nbad import errors
from nbad.errors import (
    ConvergenceError,
    DetachError,
    EscapedTraceError,
    InputTypeError,
    KernelError,
    MutationError,
    NbadError,
    NonFiniteError,
    NonScalarOutputError,
    NoRuleError,
    RuleError,
    TapeError,
    WrtError,
    where,
)

# The built-in class that a NumPy user would catch.
BUILTIN = {
    DetachError: TypeError,
    EscapedTraceError: RuntimeError,
    InputTypeError: TypeError,
    ConvergenceError: ArithmeticError,
    KernelError: RuntimeError,
    MutationError: RuntimeError,
    NoRuleError: TypeError,
    NonFiniteError: FloatingPointError,
    NonScalarOutputError: TypeError,
    RuleError: ValueError,
    TapeError: ValueError,
    WrtError: ValueError,
}


def test_the_table_is_complete() -> None:
    classes = {getattr(errors, name) for name in errors.__all__} - {where, NbadError}
    assert set(BUILTIN) == classes


@pytest.mark.parametrize("cls", BUILTIN, ids=lambda cls: cls.__name__)
def test_error_is_both_ours_and_a_builtin(cls: type[NbadError]) -> None:
    error = cls("it broke", at="f.py:3: x", fix="Mend it.")
    assert isinstance(error, NbadError)
    assert isinstance(error, BUILTIN[cls])
    assert str(error) == "it broke\n  at f.py:3: x\n  Mend it."
    assert str(cls("it broke")) == "it broke"


@pytest.mark.parametrize("cls", BUILTIN, ids=lambda cls: cls.__name__)
def test_error_survives_pickling(cls: type[NbadError]) -> None:
    again = pickle.loads(pickle.dumps(cls("it broke", at="f.py:3: x", fix="Mend it.")))
    assert type(again) is cls
    assert str(again) == "it broke\n  at f.py:3: x\n  Mend it."
    assert (again.what, again.at, again.fix) == ("it broke", "f.py:3: x", "Mend it.")


def test_where_quotes_the_source_line() -> None:
    line = test_where_quotes_the_source_line.__code__.co_firstlineno
    text = where(__file__, line)
    assert text == f"{__file__}:{line}: def test_where_quotes_the_source_line() -> None:"


def test_where_without_source() -> None:
    assert where("<stdin>", 7) == "<stdin>:7"
    assert where(__file__, 10**6) == f"{__file__}:{10**6}"


@pytest.mark.parametrize(
    ("output", "parts"),
    [
        (np.zeros((2, 3)), ["shape (2, 3)", "nbad.vjp", ".sum()"]),
        (np.zeros(1), ["shape (1,)"]),
        (np.complex128(1j), ["complex128", "real part"]),
        (1j, ["complex128", "real part"]),
        (np.int64(3), ["int64", "carries no derivative"]),
        (3, ["int64", "carries no derivative"]),
        (True, ["bool", "carries no derivative"]),
        ((1.0, 2.0), ["returned tuple", "has_aux=True"]),
        (None, ["returned NoneType", "has_aux=True"]),
    ],
)
def test_non_scalar_output(output: object, parts: list[str]) -> None:
    error = NonScalarOutputError.of("grad", output, at="f.py:1")
    assert str(error).startswith("grad: the function returned ")
    for part in [*parts, "at f.py:1"]:
        assert part in str(error)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_input_type_names_the_cast() -> None:
    cases = [
        (np.arange(3), ["dtype int64", "x.astype(np.float64)"]),
        (np.array([True]), ["dtype bool", "x.astype(np.float64)"]),
        (np.uint8(3), ["dtype uint8"]),
        (3, ["Python int", "float(x)"]),
        (True, ["Python bool"]),
        (np.ma.array([1.0], mask=[True]), ["masked array", "filled"]),
        (np.matrix([[1.0]]), ["np.matrix", "np.asarray"]),
        (np.array([None]), ["array of objects", "x.astype(np.float64)"]),
        (np.zeros(2, dtype=[("a", "f8")]), ["structured", "x['name']"]),
        (np.zeros(2, dtype="f2"), ["dtype float16", "float32, float64"]),
        (np.array(["a"]), ["dtype <U1"]),
        ("text", ["builtins.str", "register"]),
    ]
    for value, parts in cases:
        text = str(InputTypeError.of("params.psf", value, at="f.py:2: code"))
        assert text.startswith("cannot differentiate with respect to params.psf: it is ")
        for part in [*parts, "at f.py:2: code"]:
            assert part in text


def test_wrt_lists_what_exists() -> None:
    text = str(WrtError.unknown("z", "there is no argument 'z'", ["x", "y"]))
    assert text == "wrt='z': there is no argument 'z'\n  Existing names: x, y."
    assert "Existing keys: none." in str(WrtError.unknown("z", "no", [], kind="keys"))
    assert "and 88 more" in str(WrtError.unknown("z", "no", range(100)))


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (NoRuleError.of("np.linalg.svd", at="f.py:1"), ["np.linalg.svd", "nbad.primitive", "stop_gradient"]),
        (NoRuleError.of("np.sort", instead="Use take."), ["Use take. Add a rule"]),
        (DetachError.of("float(x)", at="f.py:1"), ["float(x)", "f.py:1", "nbad.stop_gradient"]),
        (DetachError.of("math.exp(x)", instead="Use np.exp(x)."), ["Use np.exp(x). If"]),
        (
            MutationError.of("np.multiply", "operand b", at="f.py:9"),
            ["operand b of np.multiply", "f.py:9", "copy"],
        ),
        (EscapedTraceError.of("np.add", at="f.py:9"), ["np.add", "already ended", "has_aux", "f.py:9"]),
        (RuleError.parameter("blur", "blur_x", "q", ["g", "x"]), ["blur_x of blur", "'q'", "g, x"]),
        (RuleError.reserved("blur", "g", ["g", "y"]), ["blur", "'g'", "reserved are: g, y"]),
        (RuleError.shape("blur", "x", (2, 3), (4,), at="f.py:4"), ["(2, 3)", "(4,)", "f.py:4", "for x"]),
        (KernelError.of("exp/f8", at="f.py:4"), ["exp/f8", "f.py:4", "report"]),
    ],
)
def test_messages_name_the_parts(error: NbadError, parts: list[str]) -> None:
    for part in parts:
        assert part in str(error)
