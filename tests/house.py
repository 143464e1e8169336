"""The rules of the house that no ready-made linter knows, as functions from source text to what breaks them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

TORCH = {
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "multinomial", "bernoulli",
    "normal", "poisson", "binomial", "manual_seed", "seed", "initial_seed", "Generator", "get_rng_state",
    "set_rng_state", "random", "default_generator", "dropout", "alpha_dropout", "feature_dropout", "rrelu",
    "native_dropout",
}  # fmt: skip
MODULES = ("random", "secrets", "numpy.random", "torch.random", "torch.nn.init", "torch.quasirandom", "scipy.stats.qmc")
FUNCTIONS = {
    "os.urandom", "uuid.uuid1", "uuid.uuid4", "torch.nn.functional.dropout", "torch.nn.functional.gumbel_softmax",
    "torch.nn.functional.rrelu", "torch.nn.functional.alpha_dropout", "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all", "torch.mps.manual_seed", "torch.nn.Dropout", "numpy.default_rng",
}  # fmt: skip
IN_PLACE = {
    "normal_", "uniform_", "random_", "bernoulli_", "exponential_", "cauchy_", "geometric_", "log_normal_",
}  # fmt: skip
ALWAYS = {"rsample", "sample_n", "rvs", "multinomial"}  # method names that no Rng has
OF_RNG = {"sample", "bernoulli", "binomial"}  # methods that an Rng has and others have too
RNG = re.compile(r"((^|\.)_?(rng|r|motes)|^Rng\([^()]*\))(\.(at|shard)\(.*\))*$", re.DOTALL)


def random_sources(source: str) -> list[tuple[int, str]]:
    """Line and name of every use of randomness that does not come from a `motes.rng.Rng`.

    Names are followed through imports and plain assignments of a module (`F = torch.nn.functional`). Distributions are
    known by their method: `.sample()` is allowed on what is called rng or r, on the package (it runs a model), and
    where an rng is the first argument; nowhere else.
    """
    tree = ast.parse(source)
    names = _imported(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found += [(node.lineno, name) for name in _targets(node) if _forbidden(name)]
        elif isinstance(node, (ast.Attribute, ast.Name)):
            name = _resolve(node, names)
            if name and _forbidden(name):
                found.append((node.lineno, name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method, receiver = node.func.attr, ast.unparse(node.func.value)
            known = _resolve(node.func, names) or ""
            if method in IN_PLACE | ALWAYS and not known.startswith("motes."):
                found.append((node.lineno, f".{method}()"))
            given = [receiver, *(ast.unparse(a) for a in node.args[:1])]
            if method in OF_RNG and not known.startswith("motes.") and not any(map(RNG.search, given)):
                found.append((node.lineno, f".{method}()"))
        if isinstance(node, ast.keyword) and node.arg == "do_sample" and not _is_false(node.value):
            found.append((node.value.lineno, "do_sample"))
    return sorted(set(found))


def _forbidden(name: str) -> bool:
    head, _, rest = name.partition(".")
    return (
        (head == "torch" and rest in TORCH)
        or name in FUNCTIONS
        or any(name == m or name.startswith(m + ".") for m in MODULES)
    )


def _targets(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [a.name for a in node.names]
    if node.level or node.module is None:
        return []
    return [f"{node.module}.{a.name}" for a in node.names]


def _imported(tree: ast.AST) -> dict[str, str]:
    """What each name stands for: `import numpy as np` gives np -> numpy."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for a in node.names:
                names[a.asname or a.name.split(".")[0]] = a.name if a.asname else a.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for a in node.names:
                names[a.asname or a.name] = f"{node.module}.{a.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute) and len(node.targets) == 1:
            target, value = node.targets[0], _resolve(node.value, names)
            if isinstance(target, ast.Name) and value and value.split(".")[0] in ("torch", "numpy"):
                names[target.id] = value
    return names


def _resolve(node: ast.expr, names: dict[str, str]) -> str | None:
    """The dotted name of an expression, with its first part followed to the import; None if it starts elsewhere."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        base = _resolve(node.value, names)
        return base and f"{base}.{node.attr}"
    return None


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def calls(source: str, name: str) -> Iterator[int]:
    """Lines that call a plain function `name`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node.lineno


def privates(source: str, package: str) -> list[tuple[int, str]]:
    """Line and name of every use of what another module keeps private.

    That is an attribute `x._name` that this module neither defines nor takes from `self`, and a `_name` imported from
    another package than its own; a private name of its own package has to be a module.

    Args:
        source: the text of a module.
        package: where it lies, as in "motes.core".
    """
    tree = ast.parse(source)
    own = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    own |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _of_self(node.value):
            own |= {node.attr} if isinstance(node.ctx, ast.Store) else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module != package:
            found += [(node.lineno, a.name) for a in node.names if _private(a.name)]
        if (
            isinstance(node, ast.Attribute)
            and _private(node.attr)
            and node.attr not in own
            and not _of_self(node.value)
        ):
            found.append((node.lineno, ast.unparse(node)))
    return sorted(found)


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _of_self(node: ast.expr) -> bool:
    """Whether this is `self`, `cls` or `super()`."""
    name = node.func if isinstance(node, ast.Call) else node
    return isinstance(name, ast.Name) and name.id in ("self", "cls", "super")
