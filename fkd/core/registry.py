"""Registries that find their entries by walking a package: a new entry is one new file."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from fkd.core.errors import ConfigError, FkdError

#: So many names an error message lists; of more, the nearest fourth of this.
_MOST_NAMES = 40

EntryT = TypeVar("EntryT", bound=type)


class Registry(Generic[EntryT]):
    """Names mapped to classes, filled by importing every public module of a package.

    Args:
        kind: what the entries are, in words for error messages ("data set", "attack").
        package: dotted name of the package whose modules hold the entries.

    Example:
        >>> from fkd.core.registry import Registry
        >>> shapes = Registry("shape", package=None)
        >>> @shapes.register("circle")
        ... class Circle:
        ...     "A round thing."
        >>> shapes.available()
        {'circle': 'A round thing.'}
    """

    def __init__(self, kind: str, package: str | None) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, EntryT] = {}
        self._is_loaded = package is None
        self._lock = threading.RLock()

    def register(self, name: str) -> Callable[[EntryT], EntryT]:
        """Class decorator that files the class under ``name`` and sets its ``name`` attribute.

        Raises:
            ConfigError: the name is taken by another class.
        """

        def decorate(entry: EntryT) -> EntryT:
            taken = self._entries.get(name)
            # A reloaded module registers the same class again; that is no clash.
            if taken is not None and (taken.__module__, taken.__qualname__) != (
                entry.__module__,
                entry.__qualname__,
            ):
                raise ConfigError(
                    f"The {self.kind} name '{name}' is taken by {taken.__module__}; "
                    f"give the one in {entry.__module__} another name."
                )
            entry.name = name
            self._entries[name] = entry
            settings = getattr(entry, "Config", None)
            if settings is not None:
                # Its error sentences then speak of the entry instead of the class.
                settings.registry = self
            return entry

        return decorate

    def unregister(self, name: str) -> None:
        """Forget an entry (for tests that add throw-away ones)."""
        self._entries.pop(name, None)

    def _load(self) -> None:
        with self._lock:
            if self._is_loaded or self._package is None:
                return
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.name.startswith("_"):
                    self._import(module.name)
            self._is_loaded = True

    def _import(self, module: str) -> None:
        """Import one file, which may be a user's own.

        Raises:
            ConfigError: it cannot be imported.
        """
        try:
            importlib.import_module(f"{self._package}.{module}")
        except FkdError:
            raise
        except Exception as error:
            raise ConfigError(
                f"The file {module}.py in {self._package} cannot be loaded "
                f"({type(error).__name__}: {error}); mend it or take it away."
            ) from error

    def get(self, name: str) -> EntryT:
        """The class filed under ``name``.

        Raises:
            ConfigError: there is none; the message lists the names that exist.
        """
        self._load()
        if name in self._entries:
            return self._entries[name]
        raise ConfigError(unknown_name_sentence(self.kind, name, sorted(self._entries)))

    def available(self) -> dict[str, str]:
        """Every name with the first line of its class's docstring, sorted by name."""
        self._load()
        return {
            name: (entry.__doc__ or "").strip().splitlines()[0] if entry.__doc__ else ""
            for name, entry in sorted(self._entries.items())
        }

    def owners(self, settings: type) -> list[str]:
        """Names of the entries whose ``Config`` is exactly this class."""
        entries = sorted(self._entries.items())
        return [name for name, entry in entries if getattr(entry, "Config", None) is settings]

    def with_setting(self, field: str) -> list[str]:
        """Names of the entries whose ``Config`` has a field of that name."""
        self._load()
        return [
            name
            for name, entry in sorted(self._entries.items())
            if field in getattr(getattr(entry, "Config", None), "model_fields", ())
        ]

    def __contains__(self, name: str) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries))


def unknown_name_sentence(kind: str, name: str, known: list[str]) -> str:
    """One sentence for a name that does not exist: the nearest match, and all names or the nearest."""
    close = difflib.get_close_matches(str(name), known, n=1)
    if not known:
        return f"There is no {kind} called '{name}'; none is available."
    shown = known
    if len(known) > _MOST_NAMES:
        shown = difflib.get_close_matches(str(name), known, n=_MOST_NAMES // 4, cutoff=0.0)
    more = f" and {len(known) - len(shown)} more" if len(shown) < len(known) else ""
    listing = ", ".join(shown) + more
    if close:
        return f"There is no {kind} called '{name}'; did you mean '{close[0]}'? Known: {listing}."
    return f"There is no {kind} called '{name}'; choose one of {listing}."
