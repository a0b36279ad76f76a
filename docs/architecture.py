"""Draws `docs/architecture.svg` from the import graph: `python docs/architecture.py`.

A panel per package, a box per room or file of it, a row per layer: an arrow goes from what imports to what it
imports, always down. An import that follows from two others is not drawn (the transitive reduction).
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed
PICTURE = ROOT / "docs/architecture.svg"
PANELS = {
    "fivefold": "the Python door",
    "pipelines": "how it is run",
    "models": "what is learned",
    "data": "what it is learned from",
}
"""The packages, from the top down, and what each is."""

Edges = dict[str, set[str]]
"""By node, the nodes that it imports."""

BOX, GAP, ROW, LETTER, WIDTH = 26, 50, 62, 7.3, 1180
"""Height of a box, space between two, distance of rows, width of a letter, width of the picture, in pixels."""


def rooms(graph: grimp.ImportGraph, package: str) -> Edges:
    """What each direct child of a package imports of the others."""
    children = sorted(graph.find_children(package))
    within = {module: child for child in children for module in {child, *graph.find_descendants(child)}}
    edges: Edges = {child: set() for child in children}
    for module, child in within.items():
        found = (within.get(imported) for imported in graph.find_modules_directly_imported_by(module))
        edges[child] |= {other for other in found if other is not None and other != child}
    return edges


def layers(edges: Edges) -> list[list[str]]:
    """The nodes from the top down, each below all that import it and as high as they allow.

    Raises:
        ValueError: If there is a circle.
    """
    left, found = set(edges), []
    while left:
        top = sorted(node for node in left if not any(node in edges[other] for other in left))
        if not top:
            raise ValueError(f"the imports of {', '.join(sorted(left))} go in a circle")
        found.append(top)
        left -= set(top)
    return found


def reduced(edges: Edges) -> Edges:
    """The fewest edges from which all others follow."""

    def reach(node: str) -> set[str]:
        return edges[node].union(*(reach(other) for other in edges[node]))

    return {node: near - set().union(*(reach(other) for other in near)) for node, near in edges.items()}


def panel(title: str, words: str, edges: Edges, top: float) -> tuple[list[str], float]:
    """One package: its SVG elements, and where it ends."""
    where: dict[str, tuple[float, float]] = {}
    boxes, y = [], top + 46
    for row in layers(edges):
        sizes = [LETTER * len(node.rpartition(".")[2]) + 20 for node in row]
        x = (WIDTH - sum(sizes) - GAP * (len(row) - 1)) / 2
        for node, size in zip(row, sizes, strict=True):
            name = escape(node.rpartition(".")[2])
            boxes.append(f'<rect class="room" x="{x:.1f}" y="{y}" width="{size:.1f}" height="{BOX}" rx="4"/>')
            boxes.append(f'<text class="name" x="{x + size / 2:.1f}" y="{y + 17}">{name}</text>')
            where[node] = (x + size / 2, y)
            x += size + GAP
        y += ROW
    bottom = y - ROW + BOX + 14
    arrows = []
    for node, near in sorted(reduced(edges).items()):
        for other in sorted(near):
            (x1, y1), (x2, y2) = where[node], where[other]
            arrows.append(f'<path class="import" d="M{x1:.1f} {y1 + BOX} L{x2:.1f} {y2 - 3}"/>')
    frame = f'<rect class="package" x="10" y="{top}" width="{WIDTH - 20}" height="{bottom - top}" rx="8"/>'
    head = f'<text class="title" x="24" y="{top + 24}">{title}<tspan class="words" dx="10">{words}</tspan></text>'
    return [frame, head, *arrows, *boxes], bottom


STYLE = """
text { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 12px; fill: #222 }
.name { text-anchor: middle } .title { font-size: 14px; font-weight: bold } .words { font-weight: normal; fill: #666 }
.package { fill: #f7f7f5; stroke: #bbb } .room { fill: #fff; stroke: #446 }
.import { stroke: #9ab; fill: none; marker-end: url(#head) } .uses { fill: #666; text-anchor: end }
"""


def drawing() -> str:
    """The picture as SVG, of the code as it is."""
    graph = grimp.build_graph(*PANELS, exclude_type_checking_imports=True, cache_dir=None)
    parts, top = [], 10.0
    for package, words in PANELS.items():
        elements, bottom = panel(package, words, rooms(graph, package), top)
        below = [other for other in PANELS if other != package and _uses(graph, package, other)]
        uses = f"imports {', '.join(below)}" if below else "imports none of the others"
        elements.append(f'<text class="uses" x="{WIDTH - 24}" y="{top + 24}">{uses}</text>')
        parts += elements
        top = bottom + 16
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:g}" role="img">'
        "<title>Packages, rooms and imports</title>"
        f"<style>{STYLE}</style>"
        '<defs><marker id="head" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0 L6 3 L0 6 z" fill="#9ab"/></marker></defs>'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{top:g}" fill="#fff"/>', *parts, "</svg>", ""])


def _uses(graph: grimp.ImportGraph, package: str, other: str) -> bool:
    """Whether a module of a package imports one of the other."""
    mine = {package, *graph.find_descendants(package)}
    imported = set().union(*(graph.find_modules_directly_imported_by(module) for module in mine))
    return bool(imported & {other, *graph.find_descendants(other)})


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
