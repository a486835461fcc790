"""The command ``completion``: words are completed in bash, zsh and fish."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

import tyro

from synthgrad_lab.commands import COMMANDS
from synthgrad_lab.commands.words import Command, Group


@dataclass(frozen=True)
class Completion(Command):
    """Print a script that completes the words of synthgrad in your shell.

    Example: synthgrad completion fish > ~/.config/fish/completions/synthgrad.fish

    bash reads such scripts from ~/.local/share/bash-completion/completions, zsh from the folders of $fpath.
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """The shell."""

    heavy = False

    def __call__(self) -> None:
        """Print the script."""
        kinds = {name: (text, _kind(name)) for name, text in COMMANDS.items()}
        words = ["--tyro-print-completion", self.shell]
        tyro.cli(_union(kinds), args=words, prog="synthgrad", config=(tyro.conf.FlagCreatePairsOff,))


def _kind(command: str) -> Any:
    """The type of a command; of a group, a union of its commands' types."""
    module = importlib.import_module(f"synthgrad_lab.commands.{command}")
    if not hasattr(module, "group"):
        return getattr(module, command.capitalize())
    group: Group = module.group()
    return _union({name: (text, leaf([])) for name, (text, leaf) in group.leaves.items()})


def _union(kinds: Mapping[str, tuple[str, Any]]) -> Any:
    named = [
        Annotated[kind, tyro.conf.subcommand(name, description=text, prefix_name=False)]
        for name, (text, kind) in kinds.items()
    ]
    return reduce(or_, named)
