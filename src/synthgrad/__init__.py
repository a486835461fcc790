"""Train the parts of a PyTorch network without making them wait for each other.

The method is "Decoupled Neural Interfaces using Synthetic Gradients" (Jaderberg et al., 2017).
Start with `Interface`; `decouple` cuts a net by module names; `unlocked` trains a chain part by part.
"""

from synthgrad import models as models
from synthgrad.auxiliary import Auxiliary as Auxiliary
from synthgrad.clocks import Clocks as Clocks
from synthgrad.critic import Critic as Critic
from synthgrad.cut import Cut as Cut
from synthgrad.cut import decouple as decouple
from synthgrad.interface import Interface as Interface
from synthgrad.packing import pack as pack
from synthgrad.packing import restart as restart
from synthgrad.packing import unpack as unpack
from synthgrad.quality import Quality as Quality
from synthgrad.quality import compare as compare
from synthgrad.quality import probe as probe
from synthgrad.recurrent import Recurrent as Recurrent
from synthgrad.stage import Stage as Stage
from synthgrad.stream import Tick as Tick
from synthgrad.traces import Traces as Traces
from synthgrad.unlocked import chained as chained
from synthgrad.unlocked import completely_unlocked as completely_unlocked
from synthgrad.unlocked import unlocked as unlocked

__version__ = "0.1.0"
