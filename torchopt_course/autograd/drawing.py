"""A dependency graph as a picture in layers, without any help."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .graph import Graph

ROW, GAP, LINE, LETTER = 96.0, 28.0, 15.0, 7.2


def draw(graph: Graph) -> str:
    """Each node below all that it was made from, neighbours close together."""
    layer: dict[str, int] = {}
    parents: dict[str, list[str]] = {node.key: [] for node in graph.nodes}
    children: dict[str, list[str]] = {node.key: [] for node in graph.nodes}
    for edge in graph.edges:
        parents[edge.target].append(edge.source)
        children[edge.source].append(edge.target)
    for node in graph.nodes:  # in topological order
        layer[node.key] = 1 + max((layer[p] for p in parents[node.key]), default=-1)
    for node in reversed(graph.nodes):  # leaves move down to where they are used
        if node.is_leaf and children[node.key]:
            layer[node.key] = min(layer[c] for c in children[node.key]) - 1

    rows: list[list[str]] = [[] for _ in range(max(layer.values()) + 1)]
    for node in graph.nodes:
        rows[layer[node.key]].append(node.key)
    place = {key: float(i) for row in rows for i, key in enumerate(row)}
    for sweep_number in range(8):  # order each row by the mean place of its neighbours, down and up in turns
        near = parents if sweep_number % 2 == 0 else children
        for row in rows if sweep_number % 2 == 0 else reversed(rows):
            row.sort(
                key=lambda key: sum(place[n] for n in near[key]) / len(near[key]) if near[key] else place[key]
            )
            place.update({key: float(i) for i, key in enumerate(row)})

    look = {node.key: node for node in graph.nodes}
    width = {key: 24 + LETTER * max(map(len, node.lines)) for key, node in look.items()}
    height = {key: 12 + LINE * len(node.lines) for key, node in look.items()}
    total = max(sum(width[key] + GAP for key in row) for row in rows) + GAP
    centre: dict[str, tuple[float, float]] = {}
    for depth, row in enumerate(rows):
        x = (total - sum(width[key] + GAP for key in row) + GAP) / 2
        for key in row:
            centre[key] = (x + width[key] / 2, 50 + depth * ROW)
            x += width[key] + GAP

    bottom = 50 + (len(rows) - 1) * ROW + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total:.0f} {bottom:.0f}" width="{total:.0f}" '
        f'height="{bottom:.0f}" font-family="sans-serif" font-size="12">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#667"/></marker></defs>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for edge in graph.edges:
        (x1, y1), (x2, y2) = centre[edge.source], centre[edge.target]
        y1, y2 = y1 + height[edge.source] / 2, y2 - height[edge.target] / 2
        bend = (y2 - y1) / 2
        parts.append(
            f'<path d="M{x1:.1f} {y1:.1f} C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} '
            f'{x2:.1f} {y2:.1f}" fill="none" stroke="#667" marker-end="url(#arrow)"/>'
        )
        parts.append(
            f'<text x="{(x1 + x2) / 2 + 4:.1f}" y="{(y1 + y2) / 2:.1f}" font-size="10" fill="#667">'
            f"{escape(edge.label)}</text>"
        )
    for key, node in look.items():
        x, y = centre[key]
        w, h = width[key], height[key]
        fill, corner = ("#dcebd8", 2) if node.is_leaf else ("#dce6f4", h / 2)
        parts.append(
            f'<rect x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{corner}" '
            f'fill="{fill}" stroke="#667"><title>{escape(key)}</title></rect>'
        )
        for i, line in enumerate(node.lines):
            weight = ' font-weight="bold"' if i == 0 else ' fill="#445"'
            parts.append(
                f'<text x="{x:.1f}" y="{y - h / 2 + 6 + LINE * (i + 0.75):.1f}" text-anchor="middle"{weight}>'
                f"{escape(line)}</text>"
            )
    return "\n".join([*parts, "</svg>"])
