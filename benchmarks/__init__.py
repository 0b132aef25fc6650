"""What minilog costs, beside what a user would pick instead: ``python -m benchmarks``.

Reading order: ``workloads`` (what is measured), ``peers`` (on what), ``measures`` (how),
``runner`` (rounds and ratios), ``floors`` (what the machine itself costs), ``report`` (the tables),
``chart`` (the picture).
On their own: ``growth``, ``threads``, ``breakdown`` and ``cleaning``, each ``python -m``.
Nothing here is asserted and nothing in the package imports it: figures are for reading.
"""
