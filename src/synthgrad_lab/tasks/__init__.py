"""Data: one file per source."""

from synthgrad_lab.tasks.mnist import Images, load

__all__ = ["Images", "load"]
