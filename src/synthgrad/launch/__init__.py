"""Run the stages of a chain: simulated in this process, each in a process of its own, or on a Ray cluster."""

from synthgrad.launch.launch import launch as launch
from synthgrad.launch.outcome import Outcome as Outcome
from synthgrad.launch.outcome import StageFailed as StageFailed
from synthgrad.launch.outcome import Status as Status
from synthgrad.launch.outcome import Stopped as Stopped
from synthgrad.launch.policy import Policy as Policy
from synthgrad.launch.simulator import Faults as Faults
