"""The docstrings below the fields of a dataclass of settings."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from itertools import pairwise
from typing import Any


def field_docs(settings: type) -> dict[str, str]:
    """The docstring of each field, in one line; those of nested dataclasses by dotted names."""
    found = {}
    for base in reversed(settings.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (defined,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for field, below in pairwise(defined.body):  # pyright: ignore[reportAttributeAccessIssue]
            match field, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(str(text))):
                    found[name] = " ".join(text.split())
    for field in dataclasses.fields(settings):
        group: Any = field.default_factory
        if isinstance(group, type) and dataclasses.is_dataclass(group):
            found |= {f"{field.name}.{name}": text for name, text in field_docs(group).items()}
    return found
