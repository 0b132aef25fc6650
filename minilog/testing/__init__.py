"""What tests of event-driven code use: a clock that is turned by hand, and a disk that fails.

This module refuses to know how anything is done; it hands out what the rest was built to take.
"""

from minilog.clock import ManualClock
from minilog.testing.faults import FaultPlan, FaultyDisk

__all__ = ["FaultPlan", "FaultyDisk", "ManualClock"]
