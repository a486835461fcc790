"""The interface on an edge of a network, and how its gradient model is taught. See README.md."""

from synthgrad.interface.interface import Interface as Interface
