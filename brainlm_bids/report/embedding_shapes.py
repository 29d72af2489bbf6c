"""Shapes of the dots of a map: a category has one, beside its colour."""

from __future__ import annotations

import numpy as np

# Outlines of the shapes of categories around 0, in radii; the first is a circle
_OUTLINES: tuple[tuple[tuple[float, float], ...], ...] = (
    (),
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.3), (1.2, 0.9), (-1.2, 0.9)),
    ((0, -1.4), (1.1, 0), (0, 1.4), (-1.1, 0)),
    ((0, 1.3), (-1.2, -0.9), (1.2, -0.9)),
    (
        *((-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4)),
        *((0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)),
    ),
    ((-0.4, -1.3), (0.4, -1.3), (0.4, 1.3), (-0.4, 1.3)),
    ((-1.3, -0.4), (1.3, -0.4), (1.3, 0.4), (-1.3, 0.4)),
    ((-1.1, -1.1), (1.1, -1.1), (0, 0), (1.1, 1.1), (-1.1, 1.1), (0, 0)),
    ((-1.2, 0), (-0.6, -1), (0.6, -1), (1.2, 0), (0.6, 1), (-0.6, 1)),
)
N_SHAPES = len(_OUTLINES)


def shape(number: int, radius: float) -> str:
    """A shape as the relative part of an SVG path, to be written behind `M x y`.

    Parameters
    ----------
    number
        Of the shape, 0 to 9.
    radius
        Of a circle of about its size.

    Examples
    --------
    >>> shape(1, 10)
    'm-9-9l18 0l0 18l-18 0z'
    """
    outline = _OUTLINES[number]
    if not outline:
        r = f"{radius:g}"
        return f"m-{r} 0a{r} {r} 0 1 0 {2 * radius:g} 0a{r} {r} 0 1 0-{2 * radius:g} 0z"
    points = np.round(np.array(outline) * radius, 1)
    steps = [points[0], *np.diff(points, axis=0)]
    return "m" + "l".join(_pair(x, y) for x, y in steps) + "z"


def _pair(x: float, y: float) -> str:
    first, second = (f"{round(float(value), 1) + 0.0:g}" for value in (x, y))
    return f"{first}{'' if second.startswith('-') else ' '}{second}"
