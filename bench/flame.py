"""Stacks as a picture: a flame graph each, the thread at the bottom, as wide as its share of the samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from zlib import crc32

from bench.stacks import Node, Stacks

INK: Final = "#333333"
DPI: Final = 100
WIDTH: Final = 16.0
LAYER: Final = 0.2  # inches
NARROWEST: Final = 0.002  # of the whole: less is not seen
LETTERS: Final = 250  # that fit into the whole width


def draw_flames(found: dict[str, Stacks], file: Path) -> None:
    """Draw a PNG with a panel for each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    trees = [stacks.tree() for stacks in found.values()]
    heights = [max(1, _depth(tree, tree.samples)) for tree in trees]
    figure = Figure(figsize=(WIDTH, LAYER * sum(heights) + 0.6 * len(trees)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(trees), 1, squeeze=False, height_ratios=heights)
    for axis, name, tree, height in zip(axes.flat, found, trees, heights, strict=True):
        axis.set_title(name, fontsize=11, color=INK, loc="left")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, height)
        axis.set_axis_off()
        _callees(axis, tree, tree.samples, 0, 0.0)
    figure.savefig(file, dpi=DPI, metadata={"Software": None})


def _callees(axis: Any, node: Node, whole: int, level: int, left: float) -> None:
    """Draw what a function calls above it, side by side in the order of names."""
    for callee in sorted(node.callees.values(), key=lambda each: each.name):
        width = callee.samples / whole
        if width >= NARROWEST:
            axis.barh(
                level, width, 1.0, left, align="edge", color=_colour(callee.name), edgecolor="white", linewidth=0.5
            )
            if len(text := callee.name[: int(width * LETTERS)]) > 3:
                axis.text(left + 0.001, level + 0.5, text, fontsize=7, color=INK, va="center", clip_on=True)
            _callees(axis, callee, whole, level + 1, left)
        left += width


def _depth(node: Node, whole: int) -> int:
    """How many functions stand above each other, of those that are wide enough to be drawn."""
    wide = [callee for callee in node.callees.values() if callee.samples / whole >= NARROWEST]
    return max((1 + _depth(callee, whole) for callee in wide), default=0)


def _colour(name: str) -> tuple[float, float, float]:
    """Ours are green, what we call is grey; a little different by name, so that neighbours can be told apart."""
    shade = crc32(name.encode()) % 100 / 100 * 0.16
    return (0.42 + shade, 0.74 + shade, 0.58 + shade) if "(proxy/" in name else (0.8 + shade, 0.8 + shade, 0.8 + shade)
