"""From JSON documents to typed values. A field that is missing or of another type is an error; one that we do not know
is kept in `raw`."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ._error import RectifyError

T = TypeVar("T")


def parse(kind: type[T], value: object, document: str) -> T:
    """The value as this type; `document` is its name in complaints."""
    result: T = _as(kind, value, document)
    return result


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _as(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        [kind] = [argument for argument in arguments if argument is not types.NoneType]
        return _as(kind, value, where)
    if origin is tuple:
        return _tuple(arguments, value, where)
    if origin is Mapping:
        entries = _expect(dict, value, where).items()
        return {name: _as(arguments[1], entry, f"{where}.{name}") for name, entry in entries}
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, _expect(dict, value, where), where)
    if isinstance(kind, type) and issubclass(kind, tuple):  # A named tuple.
        return kind(*_tuple(tuple(_hints(kind).values()), value, where))
    if kind is float and type(value) is int:
        return float(value)
    return _expect(kind, value, where)


def _tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    values = _expect(list, value, where)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(values)
    if len(kinds) != len(values):
        raise RectifyError("internal", f"{where} has {len(values)} entries; expected {len(kinds)}")
    return tuple(_as(kind, entry, f"{where}[{i}]") for i, (kind, entry) in enumerate(zip(kinds, values, strict=True)))


def _dataclass(kind: Any, value: dict[str, Any], where: str) -> Any:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name == "raw":
            found["raw"] = value
        elif field.name in value:
            found[field.name] = _as(_hints(kind)[field.name], value[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RectifyError("internal", f"{where} has no {field.name!r}: is the program of another version?")
    return kind(**found)


def _expect(kind: type[T], value: object, where: str) -> T:
    if type(value) is not kind:
        raise RectifyError("internal", f"{where} is {value!r:.60}; expected {kind.__name__}")
    return value
