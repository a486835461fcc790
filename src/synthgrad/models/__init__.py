"""Models that predict a gradient (or an input), called as ``M(h, context)``."""

from synthgrad.models.conv import Conv as Conv
from synthgrad.models.conv import ConvGlobal as ConvGlobal
from synthgrad.models.critic import Critic as Critic
from synthgrad.models.masked import Masked as Masked
from synthgrad.models.mlp import MLP as MLP
from synthgrad.models.mlp import Linear as Linear
