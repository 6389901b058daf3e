"""The shape of the source: imports point one way, modules stay short, some words stay out."""

import ast
import re
from pathlib import Path

import pytest

import nbad.errors

PACKAGE = Path(nbad.errors.__file__).parent

# A module imports only from modules above it. A folder stands for its modules, in the order that follows it;
# the empty name is nbad/__init__.py, which only the demonstration may import.
ORDER = [
    "errors",
    "encoding",
    "_jit",
    "tree",
    "kernels",
    "kernels.memory",
    "packing",
    "wrt",
    "config",
    "collecting",
    "report",
    "kernels.native",
    "kernels.threads",
    "kernels.blas",
    "kernels.hashing",
    "kernels.vector_math",
    "kernels.real_functions",
    "kernels.complex_functions",
    "kernels.block",
    "kernels.forward",
    "kernels.pieces",
    "kernels.lengths",
    "kernels.codelets",
    "kernels.line_codelets",
    "kernels.ways",
    "kernels.long_lines",
    "kernels.long_transforms",
    "kernels.fft",
    "kernels.passes",
    "kernels.boxes",
    "kernels.slabs",
    "kernels.convolution",
    "kernels.through",
    "kernels.cosine",
    "kernels.overlap",
    "kernels.patches",
    "tape",
    "table",
    "methods",
    "refusals",
    "writing",
    "keeping",
    "finite",
    "pulling",
    "recorder",
    "conversions",
    "trace",
    "constants",
    "ufuncs",
    "primitive",
    "rules",
    "rules.elementwise",
    "rules.discrete",
    "rules.reductions",
    "rules.shaping",
    "rules.indexing",
    "rules.updating",
    "rules.filling",
    "rules.ordering",
    "rules.sampling",
    "rules.statistics",
    "rules.applying",
    "rules.rearranging",
    "rules.contractions",
    "rules.decompositions",
    "rules.solving",
    "rules.linalg",
    "rules.polynomials",
    "rules.fourier",
    "rules.cosine",
    "rules.patches",
    "rules.overlap",
    "rules.convolution",
    "scipy_fft",
    "scipy",
    "scipy.passing",
    "scipy.special_rules",
    "scipy.bessel_rules",
    "scipy.special",
    "scipy.extending",
    "scipy.signal",
    "scipy.splines",
    "scipy.ndimage",
    "scipy.structured",
    "scipy.linalg",
    "scipy.sparse",
    "scipy.sparse.linalg",
    "operators",
    "frame",
    "activity",
    "program",
    "plan",
    "loops",
    "engine",
    "higher",
    "contracted",
    "batched",
    "transforms",
    "recorded",
    "directional",
    "coloring",
    "sparsity",
    "sparse_matrices",
    "jacobians",
    "linearizing",
    "replay",
    "replay.graph",
    "replay.recording",
    "recomputing",
    "regions",
    "checkpointing",
    "krylov",
    "implicit",
    "scalar",
    "scalar.calls",
    "scalar.entries",
    "scalar.adjoints",
    "scalar.blocks",
    "scalar.types",
    "scalar.formulas",
    "scalar.operations",
    "scalar.complex_formulas",
    "scalar.complex_numbers",
    "scalar.complex_parts",
    "scalar.lifting",
    "scalar.fourier",
    "scalar.convolutions",
    "scalar.literals",
    "scalar.origins",
    "scalar.refused",
    "scalar.arrays",
    "scalar.fields",
    "scalar.reductions",
    "scalar.products",
    "scalar.creation",
    "scalar.rearranging",
    "scalar.complex_arrays",
    "scalar.sampling",
    "scalar.solving",
    "scalar.linking",
    "scalar.caching",
    "scalar.pipeline",
    "scalar.writes",
    "scalar.sweeping",
    "scalar.reaching",
    "scalar.interacting",
    "scalar.recording",
    "scalar.loading",
    "kernel_effects",
    "kernel_errors",
    "kernel_terms",
    "jitted",
    "scanning",
    "replay.simplify",
    "replay.broadcasts",
    "replay.convolutions",
    "replay.spectra",
    "replay.rewrites",
    "replay.casts",
    "replay.storage",
    "replay.lowering",
    "replay.fusing",
    "replay.registers",
    "replay.fused",
    "replay.blocks",
    "replay.tiles",
    "replay.moving",
    "replay.loop",
    "replay.products",
    "replay.sums",
    "replay.into",
    "replay.overwriting",
    "replay.steps",
    "replay.chains",
    "replay.planning",
    "replay.program",
    "replay.picture",
    "sameness",
    "reach",
    "hidden",
    "kernel_avals",
    "avals",
    "archive",
    "tape_file",
    "signatures",
    "deriving",
    "variants",
    "saving",
    "serving",
    "directed",
    "calls",
    "compiled",
    "control",
    "testing",
    "",
    "__main__",
]
# A package's own file may list its members, so it stands after them when it imports.
LAST_OF = {"kernels": "kernels.convolution", "rules": "rules.convolution"}

MAX_LINES = 500
# Threads other than our own pool abort after fork or ignore Ctrl-C; fastmath breaks isnan.
FORBIDDEN = re.compile(r"\bprange\b|\bparallel\s*=\s*True|\bfastmath\b")

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    """Name a file as ORDER does: ``kernels.fft``; ``kernels`` for the package's own file, '' for nbad's."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file) for file in FILES}


def imported(tree: ast.AST) -> list[tuple[int, str]]:
    """List (line, module of nbad) for every import, wherever it stands."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                found.append((node.lineno, "." * node.level))
                continue
            # `from nbad.rules import fourier` imports a module, `from nbad.tree import leaves` does not.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = [str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        else:
            continue
        for name in names:
            if name == "nbad" or name.startswith("nbad."):
                module = name.removeprefix("nbad").removeprefix(".")
                while module not in MODULES:
                    module = module.rpartition(".")[0]
                found.append((node.lineno, module))
    return found


def test_every_module_has_a_place() -> None:
    assert sorted(MODULES - set(ORDER)) == [], "new modules: add them to ORDER at their place"


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_point_one_way(file: Path) -> None:
    module = module_of(file)
    assert module in ORDER, "add it to ORDER at its place"
    place = ORDER.index(LAST_OF.get(module, module))
    wrong = []
    for line, other in imported(ast.parse(file.read_text(encoding="utf-8"))):
        above = other in ORDER and ORDER.index(other) < place
        member = module in LAST_OF and other.startswith(f"{module}.")
        if not (above or member):
            wrong.append(f"line {line} imports nbad.{other}")
    assert wrong == []


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_modules_stay_short(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_forbidden_words_stay_out_of_code(file: Path) -> None:
    # Comments and docstrings may say why; code may not use them.
    code = ast.unparse(without_docstrings(ast.parse(file.read_text(encoding="utf-8"))))
    assert FORBIDDEN.findall(code) == []


def without_docstrings(tree: ast.Module) -> ast.Module:
    """Remove every string that stands alone."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


def test_the_walk_sees_imports_anywhere() -> None:
    source = (
        "import nbad.tree\n"
        "def f():\n"
        "    from nbad.errors import where\n"
        "    from nbad import wrt\n"
        "    from . import tape\n"
        "    importlib.import_module('nbad.packing')\n"
        "import numpy as np\n"
    )
    assert imported(ast.parse(source)) == [(1, "tree"), (3, "errors"), (4, "wrt"), (5, "."), (6, "packing")]


def test_forbidden_words_are_found() -> None:
    source = "def f(x):\n    '''No prange.'''\n    # no fastmath\n    return njit(x, parallel=True)"
    assert FORBIDDEN.findall(ast.unparse(without_docstrings(ast.parse(source)))) == ["parallel=True"]
