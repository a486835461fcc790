"""Why a run stops before its end."""


class Interrupted(Exception):
    """Ctrl-C: the run has stopped between two steps, with its record and checkpoint whole."""


class Diverged(ArithmeticError):
    """The loss is no longer a finite number."""
