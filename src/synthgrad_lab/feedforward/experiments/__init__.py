"""Feed-forward experiments: one file per table or figure."""

from __future__ import annotations

from synthgrad_lab.feedforward.experiments.every_layer import EveryLayer
from synthgrad_lab.feedforward.experiments.paper_table import PaperTable
from synthgrad_lab.feedforward.experiments.sparse import Sparse
from synthgrad_lab.feedforward.experiments.stability import Stability
from synthgrad_lab.running.experiment import Experiment

EXPERIMENTS: dict[str, type[Experiment]] = {each.name: each for each in (EveryLayer, PaperTable, Stability, Sparse)}
