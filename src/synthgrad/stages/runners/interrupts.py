"""Ctrl-C, however often, ends a launch without leaving a stage behind."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupts:
    """While open, the first Ctrl-C, polite kill or hang-up raises KeyboardInterrupt; later ones only hurry.

    Outside the main thread, where no signal arrives, it does nothing.
    """

    def __init__(self) -> None:
        self.count = self.calm = 0
        self.stopping = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            names = ("SIGTERM", "SIGINT", "SIGHUP")
            for kind in (getattr(signal, name) for name in names if hasattr(signal, name)):
                hang_up = kind not in (signal.SIGTERM, signal.SIGINT)
                if not (hang_up and signal.getsignal(kind) is signal.SIG_IGN):  # under nohup it stays ignored
                    self.before[kind] = signal.signal(kind, self._come)
        return self

    def __exit__(self, kind: Any, *exception: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if kind is None and self.count:
            raise KeyboardInterrupt

    def stop(self) -> None:
        """From now on none raises: the stages are being stopped."""
        self.stopping, self.calm = True, self.count

    @property
    def hurried(self) -> bool:
        """Whether one has come since ``stop``."""
        return self.count > self.calm

    def _come(self, number: int, frame: Any) -> None:
        self.count += 1
        if self.count == 1 and not self.stopping:
            raise KeyboardInterrupt
