"""The idea: an interface on an edge of a network, and what its gradient model learns from. See README.md."""

from synthgrad.interface.interface import Interface as Interface
