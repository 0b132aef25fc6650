"""What tests of event-driven code use: a clock that is turned by hand, disks that fail and crash.

This module refuses to know how anything is done; it hands out what the rest was built to take.
"""

from minilog.clock import ManualClock
from minilog.testing.crashes import CrashPlan
from minilog.testing.disk import SimulatedDisk
from minilog.testing.faults import FaultPlan, FaultyDisk

__all__ = ["CrashPlan", "FaultPlan", "FaultyDisk", "ManualClock", "SimulatedDisk"]
