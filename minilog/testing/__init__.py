"""What tests of event-driven code use: a clock that is turned by hand, a disk that crashes.

This module refuses to know how anything is done; it hands out what the rest was built to take.
"""

from minilog.clock import ManualClock
from minilog.testing.crashes import CrashPlan
from minilog.testing.disk import SimulatedDisk

__all__ = ["CrashPlan", "ManualClock", "SimulatedDisk"]
