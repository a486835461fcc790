"""Train the parts of a PyTorch network without making them wait for each other.

The method is "Decoupled Neural Interfaces using Synthetic Gradients" (Jaderberg et al., 2017).
Start with `Interface`. `decouple` cuts a net by module names; `unlocked` trains a chain part by part.
"""

from synthgrad import models as models
from synthgrad.chain import completely_unlocked as completely_unlocked
from synthgrad.chain import fused as fused
from synthgrad.chain import unlocked as unlocked
from synthgrad.clocks.clocks import Clocks as Clocks
from synthgrad.clocks.stream import Tick as Tick
from synthgrad.decouple.decouple import Cut as Cut
from synthgrad.decouple.decouple import decouple as decouple
from synthgrad.interface.interface import Interface as Interface
from synthgrad.models.critic import Critic as Critic
from synthgrad.quality import Quality as Quality
from synthgrad.quality import compare as compare
from synthgrad.quality import probe as probe
from synthgrad.recurrent.auxiliary import AuxiliaryTask as AuxiliaryTask
from synthgrad.recurrent.recurrent import RecurrentInterface as RecurrentInterface
from synthgrad.recurrent.state import pack as pack
from synthgrad.recurrent.state import restart as restart
from synthgrad.recurrent.state import unpack as unpack
from synthgrad.recurrent.traces import EligibilityTraces as EligibilityTraces
from synthgrad.stages.stage import Stage as Stage

__version__ = "0.1.0"
