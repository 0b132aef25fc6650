"""Mutants of the ground floor: each one small change that some test must notice.

``python -m tests.mutants`` makes them one at a time, runs the tests that run the changed line, and
prints which changes nobody noticed. Bugs that somebody chose are in ``tests.planted_bugs``.
"""
