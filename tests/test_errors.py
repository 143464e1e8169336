"""One base of errors: what the package raises itself is a MotesError."""

from __future__ import annotations

import ast
import builtins
import inspect
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from motes import errors
from motes.errors import MotesError, UnknownName, Unsupported, WrongType

SOURCE = Path(errors.__file__).parents[1]
KINDS = (
    (MotesError, ValueError),
    (WrongType, TypeError),
    (Unsupported, NotImplementedError),
    (errors.MissingPackage, ImportError),
    (errors.MissingFile, FileNotFoundError),
)
PROTOCOLS = {
    "__init__.py: AttributeError",  # of a module that has no such name
    "core/__init__.py: AttributeError",
    "laws/adapters/__init__.py: AttributeError",
    "testing/enumeration.py: AttributeError",
    "density/annealing/data_annealing.py: ValueError",  # so that the other way of calling is tried
    "core/drive.py: KeyboardInterrupt",  # the second Ctrl-C
    "kernels/stationarity/settle.py: AssertionError",  # cannot be reached
    "core/history/growing.py: IndexError",  # ends a loop over a sequence
    "laws/low_discrepancy.py: NotImplementedError",  # as torch's own distributions say it, and caught in the same file
    "laws/parameters.py: NotImplementedError",
}
"""What Python itself asks to be raised, or torch."""


def raised(name: str, text: str) -> set[str]:
    """The exceptions that a file raises, of those that Python has built in."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Raise) and node.exc is not None:
            what = ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
            if isinstance(getattr(builtins, what, None), type):
                found.add(f"{name}: {what}")
    return found


def test_what_is_raised_is_ours() -> None:
    paths = SOURCE.rglob("*.py")
    found = {line for p in paths for line in raised(str(p.relative_to(SOURCE)), p.read_text())}
    assert found == PROTOCOLS
    assert raised("a", "raise ValueError('b')\nraise KeyError\nraise\nraise error\nraise MotesError('c')") == {
        "a: ValueError",
        "a: KeyError",
    }


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_the_base(name: str) -> None:
    found = getattr(errors, name)
    assert inspect.getdoc(found)
    assert issubclass(found, (MotesError, errors.MotesWarning))


def test_they_are_caught_as_those_of_python() -> None:
    for error, kind in KINDS:
        with pytest.raises(kind, match="why"):
            raise error("why")
    with pytest.raises(KeyError) as caught:
        raise UnknownName("fruit", "aple", ["apple", "pear"])
    assert str(caught.value) == "no fruit is called 'aple', perhaps you meant 'apple'; there are: apple, pear"


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_goes_from_one_process_to_another(name: str) -> None:
    kind = getattr(errors, name)
    error = kind("fruit", "aple", ["apple"]) if kind is UnknownName else kind("what is wrong, and how to mend it")
    error.add_note("where")
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert (type(again), str(again), again.args) == (kind, str(error), error.args)
        assert again.__notes__ == ["where"]


@pytest.mark.parametrize(
    ("check", "value", "good"),
    [
        *((lambda x: errors.check_at_least(2, k=x), x, x in (2, 3)) for x in (1, 2, 3, float("nan"))),
        *((lambda x: errors.check_positive(k=x), x, x == 0.1) for x in (0.0, 0.1, -1, float("nan"))),
        *((lambda x: errors.check_whole(0, k=x), x, x is not True and x in (0, 5)) for x in (0, 5, -1, True, 1.0, "1")),
        *((lambda x: errors.check_share("[0, 1)", k=x), x, x in (0, 0.5)) for x in (0, 0.5, 1, -1, 2)),
        *((lambda x: errors.check_share("(0, 1]", k=x), x, x in (0.5, 1)) for x in (0, 0.5, 1, float("nan"))),
    ],
)
def test_checks_of_arguments(check: Callable[[Any], None], value: Any, good: bool) -> None:
    if good:
        check(value)
    else:
        with pytest.raises(MotesError, match=rf"^k must .*, not {re.escape(repr(value))}$"):
            check(value)
