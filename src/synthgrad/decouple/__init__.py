"""Interfaces in any network, placed by module name."""

from synthgrad.decouple.decouple import Cut as Cut
from synthgrad.decouple.decouple import decouple as decouple
