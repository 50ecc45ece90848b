"""Where the boxes and edges of a dependency graph go (Sugiyama, Tagawa and Toda, 1981).

1. Layers: each node below all that it was made from.
2. An edge over several layers passes through an empty place, a *gap*, in each layer between; all edges of a
   node that go so far share theirs.
3. Order in a layer: each place near the mean of its neighbours, in sweeps down and up; the order with the
   fewest crossings is kept.
4. Horizontal positions: as close to the mean of the neighbours as the order and the widths allow.

Edges run vertically through the layers, within places of their own, and bend only between layers. So none
ever passes a box, and two edges between the same nodes have different ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

MARGIN, BETWEEN_LAYERS, BETWEEN_PLACES, GAP_WIDTH = 16.0, 54.0, 18.0, 8.0
END, LETTER = 16.0, 6.0  # room for the end of an edge, and for a letter of its label
SWEEPS = 12


class Box(NamedTuple):
    """A node's rectangle, by its centre."""

    x: float
    y: float
    width: float
    height: float


class Line(NamedTuple):
    """An edge: straight down within a layer, a bend from each point to the next between layers.

    ``points`` are where the line starts, leaves that layer, enters the next, leaves it, and so on to its end.
    There is room for the label on the side that it does not come from.
    """

    points: list[tuple[float, float]]
    label_on_left: bool

    def steps(self) -> Iterator[list[tuple[float, float]]]:
        """From the start on: the end of a straight step, or the two control points and the end of a bend."""
        for n, ((x, y), (x2, y2)) in enumerate(pairwise(self.points)):
            if n % 2:
                middle = (y + y2) / 2
                yield [(x, middle), (x2, middle), (x2, y2)]
            elif y2 - y > 0.05:  # at the end of a step of no length an arrow would not know where to point
                yield [(x2, y2)]


@dataclass(frozen=True)
class Layout:
    """Boxes by the nodes' keys, lines in the order of the edges, and the size of the picture."""

    boxes: dict[str, Box]
    lines: list[Line]
    width: float
    height: float


# A node's key, or (key, layer): the gap that its edges take in that layer.
Place = str | tuple[str, int]


def layered(
    sizes: Mapping[str, tuple[float, float]], edges: Sequence[tuple[str, str, str]], low: frozenset[str]
) -> Layout:
    """Lay out a directed graph without cycles.

    Args:
        sizes: width and height of each node, in topological order.
        edges: source, target and label of each edge.
        low: nodes to move down to where they are used, as far as they have no parents.
    """
    layer = _layers(sizes, edges, low)
    rows, above, below = _places(layer, edges)
    _order(rows, above, below)

    # The boxes must be wide enough for the ends of their edges.
    into: dict[str, list[int]] = {key: [] for key in sizes}
    out_of: dict[str, list[int]] = {key: [] for key in sizes}
    for n, (source, target, _) in enumerate(edges):
        into[target].append(n)
        out_of[source].append(n)
    room = [END + LETTER * len(label) for _, _, label in edges]
    widths: dict[Place, float] = {}
    for row in rows:
        for place in row:
            widths[place] = (
                max(sizes[place][0], sum(room[n] for n in into[place]) + END)
                if isinstance(place, str)
                else GAP_WIDTH
            )
    x = _positions(rows, above, below, widths)

    heights = [max([sizes[p][1] for p in row if isinstance(p, str)], default=0.0) for row in rows]
    tops = [MARGIN]
    for height in heights:
        tops.append(tops[-1] + height + BETWEEN_LAYERS)
    bottoms = [top + height for top, height in zip(tops, heights, strict=False)]
    boxes = {
        key: Box(x[key], tops[d] + heights[d] / 2, widths[key], sizes[key][1]) for key, d in layer.items()
    }

    def passed(n: int) -> list[tuple[str, int]]:
        source, target, _ = edges[n]
        return [(source, d) for d in range(layer[source] + 1, layer[target])]

    leave, arrive, label_on_left = {}, {}, {}
    for key, box in boxes.items():
        ends = sorted(out_of[key], key=lambda n: x[next(iter(passed(n)), edges[n][1])])
        step = min(END, (box.width - END / 2) / max(1, len(ends)))
        for i, n in enumerate(ends):
            leave[n] = box.x + step * (i - (len(ends) - 1) / 2)
        comes_from = {n: x[passed(n)[-1]] if passed(n) else leave[n] for n in into[key]}
        at = box.x - sum(room[n] for n in comes_from) / 2
        for n in sorted(comes_from, key=comes_from.__getitem__):
            label_on_left[n] = comes_from[n] > at + room[n] / 2
            arrive[n] = at + (room[n] - END / 2 if label_on_left[n] else END / 2)
            at += room[n]

    lines = []
    for n, (source, target, _) in enumerate(edges):
        start, end = boxes[source], boxes[target]
        points = [(leave[n], start.y + start.height / 2), (leave[n], bottoms[layer[source]])]
        for gap in passed(n):
            points += [(x[gap], tops[gap[1]]), (x[gap], bottoms[gap[1]])]
        points += [(arrive[n], tops[layer[target]]), (arrive[n], end.y - end.height / 2)]
        lines.append(Line(points, label_on_left[n]))
    right = max(position + widths[place] / 2 for place, position in x.items())
    return Layout(boxes, lines, right + MARGIN, bottoms[-1] + MARGIN)


def _layers(
    sizes: Mapping[str, object], edges: Sequence[tuple[str, str, str]], low: frozenset[str]
) -> dict[str, int]:
    """The longest way from a node without parents."""
    parents: dict[str, list[str]] = {key: [] for key in sizes}
    children: dict[str, list[str]] = {key: [] for key in sizes}
    for source, target, _ in edges:
        parents[target].append(source)
        children[source].append(target)
    layer: dict[str, int] = {}
    for key in sizes:
        layer[key] = 1 + max((layer[parent] for parent in parents[key]), default=-1)
    for key in sizes:
        if key in low and not parents[key] and children[key]:
            layer[key] = min(layer[child] for child in children[key]) - 1
    return layer


Neighbours = dict[Place, list[Place]]


def _places(
    layer: Mapping[str, int], edges: Sequence[tuple[str, str, str]]
) -> tuple[list[list[Place]], Neighbours, Neighbours]:
    """Nodes and gaps, layer by layer, and what each is joined with above and below."""
    rows: list[list[Place]] = [[] for _ in range(max(layer.values()) + 1)]
    above: Neighbours = {}
    below: Neighbours = {}

    def add(place: Place, depth: int) -> None:
        rows[depth].append(place)
        above[place], below[place] = [], []

    for key, depth in layer.items():
        add(key, depth)
    for source, target, _ in edges:
        upper: Place = source
        for depth in range(layer[source] + 1, layer[target]):
            gap = (source, depth)
            if gap not in above:
                add(gap, depth)
                above[gap].append(upper)
                below[upper].append(gap)
            upper = gap
        above[target].append(upper)
        below[upper].append(target)
    return rows, above, below


def _order(rows: list[list[Place]], above: Neighbours, below: Neighbours) -> None:
    """Sort each row by the mean place of its neighbours, down and up in turns; keep the best."""

    def crossings() -> int:
        return sum(
            _inversions([place[n] for p in row for n in sorted(below[p], key=place.__getitem__)])
            for row in rows
        )

    place = {p: float(i) for row in rows for i, p in enumerate(row)}
    best, fewest = [list(row) for row in rows], crossings()
    for n in range(SWEEPS):
        if not fewest:
            break
        near = above if n % 2 == 0 else below
        for row in rows if n % 2 == 0 else reversed(rows):
            row.sort(key=lambda p: sum(place[q] for q in near[p]) / len(near[p]) if near[p] else place[p])
            place.update({p: float(i) for i, p in enumerate(row)})
        found = crossings()
        if found < fewest:
            best, fewest = [list(row) for row in rows], found
    for row, kept in zip(rows, best, strict=True):
        row[:] = kept


def _inversions(values: list[float]) -> int:
    """How many pairs stand in the wrong order: so many lines cross. By merging, in n log n."""
    if len(values) < 2:
        return 0
    half = len(values) // 2
    left, right = values[:half], values[half:]
    count = _inversions(left) + _inversions(right)
    left.sort()
    right.sort()
    i = 0
    for value in right:
        while i < len(left) and left[i] <= value:
            i += 1
        count += len(left) - i
    return count


def _positions(
    rows: Sequence[Sequence[Place]], above: Neighbours, below: Neighbours, widths: Mapping[Place, float]
) -> dict[Place, float]:
    """The centres: in each row as near as possible to what the neighbours want, without overlapping."""
    x: dict[Place, float] = {}
    for row in rows:
        at = 0.0
        for place in row:
            x[place] = at + widths[place] / 2
            at += widths[place] + BETWEEN_PLACES
    for n in range(2 * SWEEPS):
        near = above if n % 2 == 0 else below
        for row in rows if n % 2 == 0 else reversed(rows):
            wanted = [sum(x[q] for q in near[p]) / len(near[p]) if near[p] else x[p] for p in row]
            # Lines through a gap should be straight: what leads on wants it more.
            weights = [1.0 if isinstance(p, str) else 4.0 for p in row]
            for place, position in zip(row, _apart(row, wanted, weights, widths), strict=True):
                x[place] = position
    left = min(x[place] - widths[place] / 2 for place in x) - MARGIN
    return {place: position - left for place, position in x.items()}


def _apart(
    row: Sequence[Place], wanted: Sequence[float], weights: Sequence[float], widths: Mapping[Place, float]
) -> list[float]:
    """The positions nearest to the wanted ones, in squares, that leave room between neighbours.

    Less the room on their left the positions may only rise, so this is isotonic regression: neighbours that
    want to change places are pooled at their mean.
    """
    offsets, at = [], 0.0
    for place in row:
        offsets.append(at + widths[place] / 2)
        at += widths[place] + BETWEEN_PLACES
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for want, offset, weight in zip(wanted, offsets, weights, strict=True):
        mean, count = want - offset, 1
        while pools and pools[-1][0] > mean:
            other, its_weight, others = pools.pop()
            mean = (mean * weight + other * its_weight) / (weight + its_weight)
            weight, count = weight + its_weight, count + others
        pools.append((mean, weight, count))
    levels = [mean for mean, _, count in pools for _ in range(count)]
    return [level + offset for level, offset in zip(levels, offsets, strict=True)]
