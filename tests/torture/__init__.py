"""The long half of the tests: shares that run for as long as they are told, and are counted.

``python -m tests.torture --minutes 60`` runs them all. A share is a module here with a function
``run(minutes: float, seed: int) -> dict[str, int | float]``, whose ``"violations"`` must be 0.
"""
