"""The seven networks in figures: order, colours, legends and strips of parcels."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba_array
from matplotlib.patches import Patch

from brainlm_bids.figures.canvas import without_frame
from brainlm_bids.figures.palette import FAINT, NETWORKS, ink_on


def network_order(networks: np.ndarray) -> np.ndarray:
    """Sort parcels by network, keeping the order of the atlas within a network.

    Parameters
    ----------
    networks
        (V,) networks 1…7; 0 (none) comes last.

    Returns
    -------
    ndarray
        (V,) indices.

    Examples
    --------
    >>> network_order(np.array([2, 0, 1, 2])).tolist()
    [2, 0, 3, 1]
    """
    networks = np.asarray(networks)
    return np.argsort(np.where(networks > 0, networks, len(NETWORKS) + 1), kind="stable")


def network_colours(networks: np.ndarray) -> list[str]:
    """Colour of the network of each parcel.

    Parameters
    ----------
    networks
        (V,) networks 1…7, 0 for none.

    Returns
    -------
    list of str
        V hexadecimal colours.
    """
    return [
        NETWORKS[n - 1].colour if 0 < n <= len(NETWORKS) else FAINT for n in networks.astype(int)
    ]


def network_cmap() -> ListedColormap:
    """Make the colour map of the networks.

    Returns
    -------
    ListedColormap
        Entry n is network n; entry 0 is a pale grey.
    """
    return ListedColormap([FAINT, *(network.colour for network in NETWORKS)])


def network_rgba(networks: np.ndarray) -> np.ndarray:
    """Colour of the network of each parcel, for pictures.

    Parameters
    ----------
    networks
        (V,) networks 1…7, 0 for none.

    Returns
    -------
    ndarray
        (V, 4) from 0 to 1.
    """
    return np.asarray(to_rgba_array(network_colours(np.asarray(networks))))


def network_legend(figure: Any, networks: np.ndarray, **where: Any) -> None:
    """Draw the legend of the networks that occur.

    Parameters
    ----------
    figure
        A figure or sub-figure.
    networks
        (V,) networks 1…7, 0 for none.
    **where
        Options of `Figure.legend`, such as `loc`.
    """
    present = [n for n in range(1, len(NETWORKS) + 1) if np.any(np.asarray(networks) == n)]
    handles = [Patch(color=NETWORKS[n - 1].colour, label=NETWORKS[n - 1].name) for n in present]
    if np.any(np.asarray(networks) == 0):
        handles.append(Patch(color=FAINT, label="no network"))
    if not present:
        return
    options: dict[str, Any] = {
        "ncol": len(handles),
        "handlelength": 1.0,
        "columnspacing": 1.2,
        **where,
    }
    figure.legend(handles=handles, **options)


def network_strip(axes: Axes, sorted_networks: np.ndarray) -> None:
    """Colour each row of a matrix that is sorted by network.

    Parameters
    ----------
    axes
        A narrow axes beside the matrix; it is filled.
    sorted_networks
        (V,) network of each row.
    """
    strip = np.asarray(sorted_networks, dtype=float)[:, None]
    axes.imshow(
        strip, aspect="auto", cmap=network_cmap(), vmin=-0.5, vmax=7.5, interpolation="nearest"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    without_frame(axes)
    for number, (first, last) in group_edges(sorted_networks).items():
        # a name in a narrow band would run into its neighbours
        if number == 0 or (last - first) < 0.03 * len(strip):
            continue
        network = NETWORKS[number - 1]
        style: dict[str, Any] = {"fontsize": 6.5, "weight": "bold", "ha": "center", "va": "center"}
        middle = (first + last - 1) / 2
        axes.text(0.0, middle, network.abbreviation, color=ink_on(network.colour), **style)


def group_edges(sorted_groups: np.ndarray) -> dict[int, tuple[int, int]]:
    """Find the groups in a sorted array.

    Parameters
    ----------
    sorted_groups
        (V,) numbers of groups; equal ones are neighbours.

    Returns
    -------
    dict
        Number of a group to its first index and the index after its last.

    Examples
    --------
    >>> group_edges(np.array([1, 1, 4]))
    {1: (0, 2), 4: (2, 3)}
    """
    numbers, first = np.unique(sorted_groups, return_index=True)
    edges = {}
    for number, start in sorted(zip(numbers, first), key=lambda pair: pair[1]):
        edges[int(number)] = (int(start), int(start + np.sum(sorted_groups == number)))
    return edges
