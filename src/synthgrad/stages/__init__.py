"""Stages in processes of their own: simulated in one process, in a process each, or on Ray. See README.md."""

from synthgrad.stages.launch import launch as launch
from synthgrad.stages.outcome import Outcome as Outcome
from synthgrad.stages.outcome import StageFailed as StageFailed
from synthgrad.stages.outcome import Status as Status
from synthgrad.stages.outcome import Stopped as Stopped
from synthgrad.stages.policy import Policy as Policy
from synthgrad.stages.runners.simulated import Faults as Faults
from synthgrad.stages.stage import Stage as Stage
