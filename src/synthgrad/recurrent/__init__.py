"""Recurrent networks in chunks of T steps: an interface between a chunk and the next."""

from synthgrad.recurrent.auxiliary import AuxiliaryTask as AuxiliaryTask
from synthgrad.recurrent.recurrent import RecurrentInterface as RecurrentInterface
from synthgrad.recurrent.state import pack as pack
from synthgrad.recurrent.state import restart as restart
from synthgrad.recurrent.state import unpack as unpack
from synthgrad.recurrent.traces import EligibilityTraces as EligibilityTraces
