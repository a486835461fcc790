"""The ranges of all numbers among the settings, in one table; a number without a range is a fault of the code."""

from __future__ import annotations

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any

Range = tuple[float, float]
"""The least and the greatest value, both allowed; infinity stands for no limit, and is no value itself."""

SEEDS: Range = (0, 2**63 - 1)
"""What torch's generators take, with room for what is added to a seed."""
THREADS: Range = (1, 1024)
"""With very many more torch crashes instead of failing."""

_POSITIVE: Range = (1e-9, math.inf)
_FROM_ZERO: Range = (0, math.inf)
_FROM_ONE: Range = (1, math.inf)
_SHARE: Range = (0, 1)
_BETA: Range = (0, 0.999999)

RANGES: dict[str, Range] = {
    "seed": SEEDS,
    "threads": THREADS,
    **dict.fromkeys(("steps", "updates", "eval_every", "checkpoint_every"), _FROM_ONE),
    **dict.fromkeys(("layers", "width", "units", "batch", "T", "bits", "first", "ahead"), _FROM_ONE),
    **dict.fromkeys(("model_hidden", "input_hidden", "model_kernel"), _FROM_ONE),
    **dict.fromkeys(("model_depth", "model_global", "target_every", "warmup"), _FROM_ZERO),
    **dict.fromkeys(("lr", "read_out_lr", "model_lr"), _FROM_ZERO),
    **dict.fromkeys(("anchor", "model_anchor", "aux_weight", "scale", "limit"), _FROM_ZERO),
    **dict.fromkeys(("clip", "epochs", "unit_factor"), _POSITIVE),
    **dict.fromkeys(("model_beta1", "model_beta2"), _BETA),
    **dict.fromkeys(("lam", "lam_end", "gamma", "traces", "model_sees"), _SHARE),
    **dict.fromkeys(("warm_up", "use_until", "learn_until"), _SHARE),
    "p_update": (0.001, 1),
    # Of a launch.
    "stages": (2, math.inf),
    **dict.fromkeys(("slow", "down"), _FROM_ONE),
    **dict.fromkeys(("lateness", "crashes", "faulty"), _FROM_ZERO),
    "drop": (0, 0.999999),
}
"""By the setting's name, whichever kind of run it belongs to."""


def refuse_outside(config: Any, special: Mapping[str, Range] | None = None) -> None:
    """Refuse a number that is not in its range, by name and with the range.

    Args:
        config: a dataclass of settings.
        special: ranges that this kind of run has instead of the table's.

    Raises:
        ValueError: for a number outside (NaN and infinity always are), or one with a fraction for a count.
    """
    for name, whole in numeric(type(config)).items():
        value = getattr(config, name)
        for one in value if isinstance(value, tuple | list) else (value,):
            if one is not None:
                refuse_number(name, one, {**RANGES, **(special or {})}[name], whole)


def refuse_number(name: str, value: float, allowed: Range, whole: bool) -> None:
    """Refuse one number that is not in its range.

    Raises:
        ValueError: as ``refuse_outside``.
    """
    low, high = allowed
    if not (low <= value <= high and value < math.inf):
        wanted = f"from {low} to {high}" if high < math.inf else f"a number of at least {low}"
        raise ValueError(f"{name}={value}: it must be {wanted}")
    if whole and not isinstance(value, numbers.Integral):
        raise ValueError(f"{name}={value}: it must be a whole number")


def numeric(config: type) -> dict[str, bool]:
    """The settings that are numbers (or several, or none), and whether they are whole."""
    hints = typing.get_type_hints(config)
    found = {}
    for field in dataclasses.fields(config):
        kinds = _kinds(hints[field.name])
        if kinds & {int, float}:
            found[field.name] = float not in kinds
    return found


def _kinds(hint: Any) -> set[Any]:
    """The types that a type hint is made of."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union, tuple):
        return set().union(*(_kinds(each) for each in typing.get_args(hint) if each is not ...))
    return {hint}
