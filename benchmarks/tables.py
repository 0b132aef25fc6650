"""Figures as cells, and cells as a Markdown table that reads in a terminal too.

Refuses to know what was measured.
"""

from collections.abc import Callable, Iterable, Sequence

from benchmarks.runner import Sample

NOTHING = "-"


def cell(sample: Sample | None, show: Callable[[float], str] | None = None) -> str:
    """The median and, in brackets, the lowest and highest of the rounds."""
    if sample is None:
        return NOTHING
    show = show or short
    if len(sample.figures) == 1:
        return show(sample.median)
    return f"{show(sample.median)} ({show(sample.lowest)}-{show(sample.highest)})"


def short(figure: float) -> str:
    """Three digits, and k or M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if figure >= size * 0.9995:
            return f"{three_digits(figure / size)}{suffix}"
    return three_digits(figure)


def three_digits(figure: float) -> str:
    decimals = 0 if figure >= 99.95 else 1 if figure >= 9.995 else 2
    return f"{figure:.{decimals}f}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The cells of each column under one another."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = (
        " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(f"| {line} |" for line in padded)
