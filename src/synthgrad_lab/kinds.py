"""The kinds of runs: which settings belong to which training."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from synthgrad_lab import config
from synthgrad_lab.recurrent import config as recurrent

AnySettings: TypeAlias = config.Settings | recurrent.Settings


class Training(Protocol):
    """What the run's loop drives: one step after another, a point of the curve now and then, a result."""

    measure: str
    """The key of a point that tells how well it goes."""

    def step(self, done: int) -> float | None:
        """One step, after so many; its loss, if there was one."""
        ...

    def point(self) -> dict[str, Any]:
        """Measures for the curve, from validation data; ``quality`` holds those of each gradient model."""
        ...

    def result(self, seconds: float, measure: float) -> dict[str, Any]:
        """What the record's last line says."""
        ...

    def events(self) -> list[dict[str, Any]]:
        """The timeline of a step, where there is one to show."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that a later step depends on, but for torch's own random state."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a ``state_dict``."""
        ...


def settings_from(values: dict[str, Any]) -> AnySettings:
    """Settings as a record has them."""
    return (recurrent.Settings if "T" in values else config.Settings)(**values)


def fetched(settings: AnySettings) -> tuple[str | None, ...]:
    """Which data a run needs; runs that need the same need it fetched once."""
    if isinstance(settings, recurrent.Settings):
        return settings.recipe, settings.text, settings.data_dir
    return settings.data, settings.data_dir


def fetch(settings: AnySettings) -> None:
    """See to it that a run's data is in the cache."""
    if isinstance(settings, recurrent.Settings):
        from synthgrad_lab.recurrent.tasks import task_of

        task_of(settings)
        return
    from synthgrad_lab.tasks import load

    load(settings.data, settings.data_dir)


def training_of(settings: AnySettings) -> Training:
    """A new training with these settings."""
    if isinstance(settings, recurrent.Settings):
        from synthgrad_lab.recurrent.training import Sequences

        return Sequences(settings)
    from synthgrad_lab.classification import Classification

    return Classification(settings)
