"""Bugs planted into a copy of the package: a harness that catches nothing proves nothing.

``python -m tests.planted_bugs`` plants them all, one at a time, and prints which layer of the
tests has caught each.
"""
