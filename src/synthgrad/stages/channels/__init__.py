"""Channels between stages: the packet, its bytes, a queue in one process, ZeroMQ between processes.

Channels only move packets. `synthgrad.stages.mailbox` decides which packets a stage can use, and
`synthgrad.stages.node` how long it waits. ZeroMQ is imported only where it is used.
"""

from synthgrad.stages.channels.packet import Inlet as Inlet
from synthgrad.stages.channels.packet import Links as Links
from synthgrad.stages.channels.packet import Outlet as Outlet
from synthgrad.stages.channels.packet import Packet as Packet
from synthgrad.stages.channels.packet import PacketKind as PacketKind
