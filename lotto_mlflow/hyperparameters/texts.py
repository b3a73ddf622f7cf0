"""A text of any value: short, and the same for equal values in every process."""

from __future__ import annotations

import hashlib
import inspect
import json
import random
import re
from collections import deque
from collections.abc import Iterable, Mapping, Set, ValuesView
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from types import ModuleType
from typing import Any

from lotto_mlflow.facts import instance_of
from lotto_mlflow.hyperparameters import tables

_MAX_CHARACTERS, _MAX_TEXT = 1_000, 5_000
"""Characters shown of a value, and of one that is a text; MLflow 3.17 keeps 6,000."""
_BEGINNING = 200
_DIGITS = 8
_MAX_STEPS = 300_000
"""Values looked at, one inside the other or side by side, until the rest is left out."""
_MAX_DEPTH = 50
_MANY = 1_000
_PLAIN = frozenset((str, int, float, bool, type(None)))
_NUMBERS = frozenset((int, float, bool))
_LONGEST_INTEGER_BITS = 10_000
"""Python 3.11 refuses to write longer ones in decimal digits."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+|0x[0-9a-fA-F]{8,}")


def text_of(value: Any, own_entry: frozenset[int] = frozenset()) -> str:
    """Return a text by which a hyperparameter can be read and compared.

    Parameters
    ----------
    value : object
        Anything.
    own_entry : frozenset of int
        Identities of the estimators whose hyperparameters have entries of their own.

    Returns
    -------
    str
        Of arrays, frames, matrices and what is long: type, size and a digest of the whole.

    Notes
    -----
    Never raises. What raises, or contains itself, is shown by its class. No text depends on where
    in memory something lies, or on the order of a set or dict.
    """
    writer = _Writer(own_entry)
    writer.write(value)
    whole = "".join(writer.parts)
    is_text = isinstance(value, str) and not isinstance(value, Enum)
    if writer.left >= 0 and len(whole) <= (_MAX_TEXT if is_text else _MAX_CHARACTERS):
        return str.__str__(value) if is_text else whole
    digest = f", digest {digest_of(whole)}" if writer.left >= 0 else ""
    return f"{type(value).__name__}{_size_of(value)}{digest}: {whole[:_BEGINNING]}…"


def digest_of(text: str) -> str:
    """Return the first digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def attribute(value: Any, name: str, missing: Any = None) -> Any:
    """Return an attribute, ``missing`` where asking for it raises anything."""
    try:
        return getattr(value, name)
    except Exception:  # noqa: BLE001 - another library's code may raise anything
        return missing


def is_estimator(value: Any) -> bool:
    """Return whether a value is an object that can be asked for its hyperparameters."""
    return not isinstance(value, type) and callable(attribute(value, "get_params"))


def constructor_values(value: Any) -> dict[str, Any]:
    """Return the attributes of an object that are named like its constructor's arguments."""
    found = {name: attribute(value, name, missing=attribute) for name in _arguments(value)}
    return {name: one for name, one in found.items() if one is not attribute}


def _arguments(value: Any) -> Mapping[str, inspect.Parameter]:
    """Return the constructor's arguments, without ``self``; empty where they are not known."""
    try:
        known = inspect.signature(type(value).__init__).parameters
    except (TypeError, ValueError):
        return {}
    return dict(list(known.items())[1:])


def _size_of(value: Any) -> str:
    unit = "characters" if isinstance(value, str) else "items"
    try:
        return f" of {len(value):,} {unit}"
    except Exception:  # noqa: BLE001 - another library's code may raise anything
        return ""


class _Writer:
    """Writes one value, part by part, and counts what it looks at.

    Parameters
    ----------
    own_entry : frozenset of int
        As in `text_of`.
    """

    def __init__(self, own_entry: frozenset[int]) -> None:
        self.parts: list[str] = []
        self.left = _MAX_STEPS
        self._own_entry = own_entry
        self._inside: set[int] = set()
        self._circular: set[int] = set()

    def write(self, value: Any) -> None:
        """Write a value, or its class where it raises, is nested too deeply or contains itself."""
        self.left -= 1
        if self.left < 0:
            return
        number, mark = id(value), len(self.parts)
        if number in self._inside:
            self._circular.add(number)
            return
        if isinstance(value, str) and not isinstance(value, Enum):
            self.parts.append(str.__repr__(value))
            return
        self._inside.add(number)
        try:
            if len(self._inside) > _MAX_DEPTH:
                raise RecursionError
            self._write(value)
        except Exception:  # noqa: BLE001 - another library's code; what raises is shown by its class
            self.parts[mark:] = [type(value).__name__]
        self._inside.discard(number)
        if number in self._circular:
            self._circular.discard(number)
            self.parts[mark:] = [type(value).__name__]

    def text(self, value: Any) -> str:
        """Return the whole text of a value, which is not written yet."""
        mark = len(self.parts)
        self.write(value)
        whole = "".join(self.parts[mark:])
        del self.parts[mark:]
        return whole

    def _write(self, value: Any) -> None:
        scalar = _scalar(value)
        if scalar is not None:
            self.parts.append(scalar)
        elif tables.is_table(value):
            self.parts.append(tables.text_of(value, self.text))
        elif isinstance(value, Mapping):
            self._write_mapping(value)
        elif isinstance(value, (list, tuple, deque, ValuesView)):
            self._write_sequence(value)
        elif isinstance(value, Set):
            self._write_items("{", self._in_order(value), "}")
        else:
            self._write_object(value)

    def _write_items(self, opening: str, values: list[Any], closing: str) -> None:
        self.parts.append(opening)
        if len(values) >= _MANY and set(map(type, values)) <= _PLAIN:
            self.parts += [json.dumps(values, ensure_ascii=False)[1:-1], closing]
            return
        for number, item in enumerate(values):
            if self.left < 0:
                break
            self.parts.append(", " if number else "")
            self.write(item)
        self.parts.append(closing)

    def _write_sequence(self, value: Any) -> None:
        names = getattr(type(value), "_fields", None)
        if isinstance(value, tuple) and isinstance(names, tuple):
            self._write_call(type(value).__name__, (), dict(zip(names, value, strict=True)))
            return
        opening, closing = "()" if isinstance(value, tuple) else "[]"
        self._write_items(opening, list(value), closing)

    def _write_mapping(self, value: Mapping[Any, Any]) -> None:
        kinds = set(map(type, value.values())) if len(value) >= _MANY else {object}
        if kinds <= _PLAIN and set(map(type, value)) == {str}:
            self.parts.append(json.dumps(dict(value), ensure_ascii=False, sort_keys=True))
            return
        self.parts.append("{")
        for number, key in enumerate(self._in_order(value)):
            if self.left < 0:
                break
            self.parts.append(", " if number else "")
            self.write(key)
            self.parts.append(": ")
            self.write(value[key])
        self.parts.append("}")

    def _in_order(self, values: Iterable[Any]) -> list[Any]:
        """Return keys or members sorted by value, where Python can do so, else by text."""
        found = list(values)
        kinds = set(map(type, found))
        if kinds == {str} or (kinds <= _NUMBERS and all(one == one for one in found)):
            return sorted(found)
        return sorted(found, key=self.text)

    def _write_object(self, value: Any) -> None:
        if isinstance(value, partial):
            self._write_call("partial", (value.func, *value.args), value.keywords)
        elif isinstance(value, ModuleType):
            self.parts.append(value.__name__)
        elif (name := _name_of(value)) is not None:
            self.parts.append(name)
        elif is_estimator(value):
            has_entry = id(value) in self._own_entry
            changed = {} if has_entry else self._changed(value, _shallow_params(value))
            self._write_call(type(value).__name__, (), changed)
        elif (state := _random_state(value)) is not None:
            self.parts.append(f"{type(value).__name__}(digest={digest_of(self.text(state))})")
        elif (law := _frozen_law(value)) is not None:
            self._write_call(*law, keeps_empty=True)
        elif is_dataclass(value):
            shown = {one.name: getattr(value, one.name) for one in fields(value) if one.repr}
            self._write_call(type(value).__name__, (), shown, keeps_empty=True)
        else:
            self._write_other(value)

    def _write_call(
        self,
        name: str,
        arguments: Iterable[Any],
        keywords: Mapping[str, Any],
        *,
        keeps_empty: bool = False,
    ) -> None:
        """Write something as the call that makes it, or by its name where that takes nothing."""
        self.parts.append(name)
        opening = "("
        for key, item in [*(("", item) for item in arguments), *keywords.items()]:
            self.parts.append(f"{opening}{key}{'=' if key else ''}")
            self.write(item)
            opening = ", "
        if opening != "(" or keeps_empty:
            self.parts.append(")" if opening != "(" else "()")

    def _changed(self, value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an object was made with, as far as it differs from the defaults."""
        default = {key: one.default for key, one in _arguments(value).items() if key in given}
        return {
            key: one
            for key, one in given.items()
            if key not in default
            or (one is not default[key] and self.text(one) != self.text(default[key]))
        }

    def _write_other(self, value: Any) -> None:
        """Write an object as it shows itself, and the digest of tables and sets that it holds.

        Notes
        -----
        Libraries show the first and the last cells of an array only, and a set in any order.
        """
        text = str(value)
        own = attribute(value, "__dict__", {})
        sets = {key: one for key, one in own.items() if isinstance(one, (set, frozenset)) and one}
        given: dict[str, Any] = {}
        if sets or _ADDRESS.search(text) or str(id(value)) in text:
            given = constructor_values(value)
            self._write_call(type(value).__name__, (), self._changed(value, given))
        else:
            self.parts.append(text)
        found = {key: one for key, one in own.items() if tables.is_table(one)} | sets
        hidden = {key: one for key, one in found.items() if key not in given}
        if hidden:
            self.parts.append(f"(digest={digest_of(self.text(hidden))})")


def _shallow_params(estimator: Any) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = estimator.get_params(deep=False)
    except TypeError:  # one of one's own that takes no ``deep``
        found = estimator.get_params()
    return found


def _scalar(value: Any) -> str | None:
    """Return the text of a number, a member of an Enum or a pattern; ``None`` for anything else."""
    if isinstance(value, Enum):
        name = value.name
        return str(value) if name is None else f"{type(value).__name__}.{name}"
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        bits = int.bit_length(value)
        is_long = bits > _LONGEST_INTEGER_BITS
        return (
            f"int of {bits:,} bits, digest {digest_of(hex(value))}"
            if is_long
            else int.__repr__(value)
        )
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, re.Pattern):  # which itself shows 200 characters
        return f"re.compile({value.pattern!r}, {int(value.flags)})"
    return str(value) if instance_of("numpy", "generic", value) else None


def _name_of(value: Any) -> str | None:
    """Return the name of a class, function or method; ``None`` for anything else."""
    if not callable(value):
        return None
    found = attribute(value, "__qualname__") or attribute(value, "__name__")
    return str(found) if isinstance(found, str) else None


def _random_state(value: Any) -> Any:
    """Return the state of a source of random numbers, ``None`` for anything else."""
    if isinstance(value, random.Random):
        return value.getstate()
    if instance_of("numpy.random", "RandomState", value):
        return value.get_state(legacy=False)
    if instance_of("numpy.random", "Generator", value):
        return value.bit_generator.state
    return value.state if instance_of("numpy.random", "BitGenerator", value) else None


def _frozen_law(value: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]] | None:
    """Return name and arguments of a distribution of scipy, such as a search draws from."""
    name = attribute(attribute(value, "dist"), "name")
    arguments, keywords = attribute(value, "args"), attribute(value, "kwds")
    if isinstance(name, str) and isinstance(arguments, tuple) and isinstance(keywords, dict):
        return name, arguments, keywords
    return None
