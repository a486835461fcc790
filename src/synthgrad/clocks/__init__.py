"""Networks that run at different rates, joined by interfaces."""

from synthgrad.clocks.clocks import Clocks as Clocks
from synthgrad.clocks.stream import Tick as Tick
