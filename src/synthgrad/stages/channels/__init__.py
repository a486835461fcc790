"""How messages travel between stages: what travels, its bytes, a queue in one process, ZeroMQ between processes.

Everything here moves packets and judges nothing; who waits for whom, and for how long, is the node's affair
(`synthgrad.stages.node`). ZeroMQ is imported only where it is used.
"""

from synthgrad.stages.channels.packet import Inlet as Inlet
from synthgrad.stages.channels.packet import Links as Links
from synthgrad.stages.channels.packet import Outlet as Outlet
from synthgrad.stages.channels.packet import Packet as Packet
from synthgrad.stages.channels.packet import PacketKind as PacketKind
