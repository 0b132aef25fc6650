"""Recipes: what programs do with an event log, built on the public names alone.

    retry       process records, again after a while where that fails, then set them aside
    transform   read from some topics and write to others, each input exactly once
                (``consume_transform_produce`` is one step of it)
    Aggregates  event sourcing: state by key, changed by who has seen all that came before

Each is short, and meant to be read and changed as much as to be called. Importing `minilog` brings
none of them. This package refuses to know anything that is not public.
"""

from minilog.recipes.event_sourcing import Aggregate, Aggregates
from minilog.recipes.retrying import Outcome, retry
from minilog.recipes.transforming import consume_transform_produce, transform

__all__ = ["Aggregate", "Aggregates", "Outcome", "consume_transform_produce", "retry", "transform"]
