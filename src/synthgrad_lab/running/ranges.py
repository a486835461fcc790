"""Ranges of numbers among the settings: each number is annotated with its range, and is checked against it."""

from __future__ import annotations

import dataclasses
import math
import numbers
import types
import typing
from typing import Annotated, Any, NamedTuple


class Range(NamedTuple):
    """The least and the greatest value, both allowed. Infinity means no limit; it is no value itself."""

    low: float
    high: float = math.inf


Count = Annotated[int, Range(1)]
FromZero = Annotated[int, Range(0)]
FromTwo = Annotated[int, Range(2)]
Weight = Annotated[float, Range(0)]
Positive = Annotated[float, Range(1e-9)]
Share = Annotated[float, Range(0, 1)]
Beta = Annotated[float, Range(0, 0.999999)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
"""What torch's generators take, with room for what is added to a seed."""
Threads = Annotated[int, Range(1, 1024)]
"""With very many more, torch crashes."""


def check_ranges(config: Any) -> None:
    """Check the numbers of a dataclass of settings, but not those of dataclasses inside it.

    Raises:
        ValueError: for a number outside its range (NaN and infinity always are), or a count with a fraction.
    """
    for name, (whole, allowed) in ranges_of(type(config)).items():
        value = getattr(config, name)
        for one in value if isinstance(value, tuple | list) else (value,):
            if one is not None:
                check_number(name, one, allowed, whole)


def check_number(name: str, value: float, allowed: Range, whole: bool) -> None:
    """Check one number.

    Raises:
        ValueError: as ``check_ranges``.
    """
    if not (allowed.low <= value <= allowed.high and value < math.inf):
        low, high = allowed
        wanted = f"from {low} to {high}" if high < math.inf else f"a number of at least {low}"
        raise ValueError(f"{name}={value}: it must be {wanted}")
    if whole and not isinstance(value, numbers.Integral):
        raise ValueError(f"{name}={value}: it must be a whole number")


def ranges_of(config: type) -> dict[str, tuple[bool, Range]]:
    """The fields that are numbers (or several, or none): whether they are whole, and their range.

    Raises:
        TypeError: if a number has no range: that is a fault of the code.
    """
    hints = typing.get_type_hints(config, include_extras=True)
    found = {}
    for field in dataclasses.fields(config):
        parts = list(_parts(hints[field.name]))
        kinds = {part for part in parts if part in (int, float)}
        if kinds:
            allowed = next((part for part in parts if isinstance(part, Range)), None)
            if allowed is None:
                raise TypeError(f"{config.__name__}.{field.name} is a number without a range")
            found[field.name] = (float not in kinds, allowed)
    return found


def _parts(hint: Any) -> typing.Iterator[Any]:
    """The types and annotations that a type hint is made of."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        yield from _parts(hint.__origin__)
        yield from hint.__metadata__
    elif origin in (types.UnionType, typing.Union, tuple):
        for each in typing.get_args(hint):
            yield from _parts(each)
    else:
        yield hint
