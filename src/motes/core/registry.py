"""All entries of one kind by name: what the files of a package register, and what other packages bring along."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from threading import RLock
from typing import Any, TypeVar

from motes.errors import MotesError, UnknownName, WrongType, check_name, folded, perhaps, warn

Entry = TypeVar("Entry")
Given = TypeVar("Given")


def snake(name: str) -> str:
    """`TopNSigma` to `top_n_sigma`, `KLTemperature` to `kl_temperature`, `Mirostat1` to `mirostat_1`."""
    out = ""
    for i, letter in enumerate(name):
        after_lower = i > 0 and (name[i - 1].islower() or (letter.isupper() and name[i + 1 : i + 2].islower()))
        out += "_" + letter if after_lower and not letter.islower() and letter != "_" else letter
    return out.lower()


def signature(name: str, call: Callable[..., Any]) -> str:
    """`mirostat_2(target=5.0, rate=0.1)`: a name with the knobs of what it calls."""
    knobs = inspect.signature(call).parameters.values()
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    shown = (stars.get(k.kind, "") + k.name + ("" if k.default is k.empty else f"={k.default!r}") for k in knobs)
    return f"{name}({', '.join(shown)})"


class Registry(Mapping[str, Entry]):
    """The entries of one kind by name, in the order of their names.

    An entry is a file of `package` in which `register` stands above a class or a function; nothing else lists it. The
    files are read when the registry is first looked at, and so are the entry points of the group `package` that other
    installed packages have. Files whose names begin with an underscore, and folders, hold no entries.

    Args:
        kind: what messages call one.
        package: where the files are.
        named: the name of an entry; without it, its `__name__` in lower case.

    Example:
        >>> from motes.kernels import kernels
        >>> kernels.find("Random_Walk")
        <class 'motes.kernels.random_walk.RandomWalk'>
    """

    kind: str
    package: str
    named: Callable[[Any], str]

    def __init__(self, kind: str, package: str, *, named: Callable[[Any], str] = lambda entry: snake(entry.__name__)):
        self.kind, self.package, self.named = kind, package, named
        self._entries: dict[str, Entry] = {}
        self._homes: dict[str, str] = {}
        self._unread = [self._read_files, self._read_entry_points]
        self._lock = RLock()

    def register(self, entry: Given, source: Any = None) -> Given:
        """Add an entry; stands above its definition, or is called with it.

        A definition that is run again takes the place of what it defined before.

        Args:
            entry: what is added.
            source: the class or function that says where it comes from, if not the entry itself.

        Raises:
            MotesError: one that is defined elsewhere has this name.
        """
        name, home = self.named(entry), _home(entry if source is None else source)
        if self._homes.setdefault(name, home) != home:
            raise MotesError(f"two {self.kind}s are called {name!r}, {self._homes[name]} and {home}: rename one")
        self._entries[name] = entry  # type: ignore[assignment]
        return entry

    def find(self, name: str, legal: Iterable[str] | None = None) -> Entry:
        """The entry of that name, or whose class has that name; case, hyphens and underscores do not matter.

        Args:
            name: of the entry.
            legal: the names that an error lists, where not all entries would do.

        Raises:
            UnknownName: there is none; the message names what is near, and all that there are.
            WrongType: `name` is no string.
        """
        if not isinstance(name, str):
            made = f"; give an instance, {name.__name__}(...)" if isinstance(name, type) else ""
            raise WrongType(f"{name!r} is no {self.kind}, nor the name of one{made}; there are: {', '.join(self)}")
        known = {folded(getattr(entry, "__name__", own)): entry for own, entry in self.items()}
        known |= {folded(own): entry for own, entry in self.items()}
        if folded(name) not in known:
            raise UnknownName(self.kind, name, self if legal is None else legal)
        return known[folded(name)]

    def make(self, name: str, *arguments: Any, **named: Any) -> Any:
        """What the entry of that name makes of its knobs, for entries that are called.

        Raises:
            UnknownName: there is none; the message names what is near, and all that there are.
            MotesError: knobs that it does not take; the message shows those that it takes.
        """
        check_name(self.kind, name, self)
        call: Any = self[name]
        shown, knobs = f"{self.kind} {signature(name, call)}", inspect.signature(call).parameters
        for knob in named:
            if knob not in knobs and not any(k.kind is k.VAR_KEYWORD for k in knobs.values()):
                raise MotesError(f"the {shown} has no knob {knob!r}{perhaps(knob, knobs)}")
        try:
            inspect.signature(call).bind(*arguments, **named)
        except TypeError as error:
            raise MotesError(f"the {shown} cannot be made: {error}") from error
        return call(*arguments, **named)

    def door(self, namespace: dict[str, Any], *, by_class: bool = True, by_name: bool = False) -> list[str]:
        """Put what the files register into the namespace of a package, and return the names for its `__all__`.

        Args:
            namespace: the package's `globals()`.
            by_class: under the names of the classes or functions.
            by_name: under the names of the entries.
        """
        self._read(1)
        own = {name: e for name, e in self._entries.items() if self._homes[name].startswith(f"{self.package}.")}
        found = {getattr(entry, "__name__", name): entry for name, entry in own.items()} if by_class else {}
        found |= own if by_name else {}
        namespace.update(found)
        return sorted(found)

    def __getitem__(self, name: str) -> Entry:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._read()))

    def __len__(self) -> int:
        return len(self._read())

    def _read(self, left: int = 0) -> dict[str, Entry]:
        """The entries, once all but `left` of the two places are read; an entry that looks sees those before it."""
        with self._lock:
            while len(self._unread) > left:
                self._unread.pop(0)()
        return self._entries

    def _read_files(self) -> None:
        for module in iter_modules(import_module(self.package).__path__, f"{self.package}."):
            if not module.ispkg and not module.name.rpartition(".")[2].startswith("_"):
                import_module(module.name)

    def _read_entry_points(self) -> None:
        for point in entry_points(group=self.package):
            try:
                entry = point.load()
                if _home(entry) not in self._homes.values():  # else its module has registered it
                    self.register(entry)
            except Exception as error:  # noqa: BLE001 a package from elsewhere must not take motes down with it
                warn(
                    f"{point.value} of another package is no {self.kind} that can be used as {point.name!r}: "
                    f"{type(error).__name__}: {error}"
                )


def _home(source: Any) -> str:
    """Where a class or a function is defined."""
    source = source.func if isinstance(source, partial) else source
    return f"{source.__module__}.{source.__qualname__}"
