"""What tests of event-driven code use: a clock that is turned by hand.

This module refuses to know how anything is done; it hands out what the rest was built to take.
"""

from minilog.clock import ManualClock

__all__ = ["ManualClock"]
