"""Handles Ctrl-C during a launch, so that no stage is left behind however often it is pressed."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupts:
    """While open, the first Ctrl-C, SIGTERM or hang-up raises KeyboardInterrupt; later ones only make it urgent.

    Outside the main thread, which gets no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.count = self.count_before_shutdown = 0
        self.shutting_down = False
        self.usual_handlers: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            names = ("SIGTERM", "SIGINT", "SIGHUP")
            for kind in (getattr(signal, name) for name in names if hasattr(signal, name)):
                hang_up = kind not in (signal.SIGTERM, signal.SIGINT)
                if not (hang_up and signal.getsignal(kind) is signal.SIG_IGN):  # under nohup it stays ignored
                    self.usual_handlers[kind] = signal.signal(kind, self._handle)
        return self

    def __exit__(self, kind: Any, *exception: object) -> None:
        for number, handler in self.usual_handlers.items():
            signal.signal(number, handler)
        if kind is None and self.count:
            raise KeyboardInterrupt

    def begin_shutdown(self) -> None:
        """Raise no more: the stages are being stopped."""
        self.shutting_down, self.count_before_shutdown = True, self.count

    @property
    def urgent(self) -> bool:
        """Whether an interrupt has come since ``begin_shutdown``."""
        return self.count > self.count_before_shutdown

    def _handle(self, number: int, frame: Any) -> None:
        self.count += 1
        if self.count == 1 and not self.shutting_down:
            raise KeyboardInterrupt
