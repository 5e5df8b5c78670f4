"""The ``workflow`` directive: draws the graph that a builder returns, with no other program.

It stands in for ``nipype.sphinxext.plot_workflow``, which calls graphviz. The code in the directive
is run; it must bind the workflow to ``wf``. Nodes stand below what they wait for; nested workflows
have a thick frame.
"""

from __future__ import annotations

from html import escape

import networkx as nx
from docutils import nodes
from docutils.parsers.rst import directives
from nipype.pipeline.engine import Workflow
from sphinx.util.docutils import SphinxDirective

_BOX_HEIGHT, _GAP_X, _GAP_Y, _LETTER = 30, 22, 34, 7.6


class WorkflowGraph(SphinxDirective):
    """Run the code and put the drawing in its place."""

    has_content = True
    # The options of nipype's directive; only the graph as written is drawn.
    option_spec = {
        "graph2use": lambda value: directives.choice(value, ("orig",)),
        "simple_form": lambda value: directives.choice(value, ("yes",)),
    }

    def run(self) -> list[nodes.Node]:
        names: dict = {}
        exec("\n".join(self.content), names)
        graph = names["wf"]._graph
        if not len(graph):
            return []
        return [nodes.raw("", drawing(graph, names["wf"].name), format="html")]


def drawing(graph: nx.DiGraph, title: str) -> str:
    """An acyclic graph as SVG, in layers from the top to the bottom."""
    layers = [list(layer) for layer in nx.topological_generations(graph)]
    place = {}
    for layer in layers:
        # Each node under the middle of what it waits for, so that few lines cross.
        wish = {n: [place[p] for p in graph.predecessors(n)] for n in layer}
        layer.sort(key=lambda n: (sum(wish[n]) / len(wish[n]) if wish[n] else 0, n.name))
        place.update({n: (i + 0.5) / len(layer) for i, n in enumerate(layer)})
    widths = {n: 24 + _LETTER * len(n.name) for n in graph}
    total = max(sum(widths[n] for n in layer) + _GAP_X * (len(layer) - 1) for layer in layers)
    centres = {}
    for row, layer in enumerate(layers):
        x = (total - sum(widths[n] for n in layer) - _GAP_X * (len(layer) - 1)) / 2
        for n in layer:
            centres[n] = (x + widths[n] / 2, row * (_BOX_HEIGHT + _GAP_Y) + _BOX_HEIGHT / 2)
            x += widths[n] + _GAP_X
    height = len(layers) * (_BOX_HEIGHT + _GAP_Y) - _GAP_Y
    parts = [
        f'<svg class="workflow" role="img" aria-label="Graph of {escape(title)}" '
        f'width="{total + 4:.0f}" viewBox="-2 -2 {total + 4:.0f} {height + 4:.0f}">'
    ]
    for start, end in graph.edges:
        (x0, y0), (x1, y1) = centres[start], centres[end]
        y0, y1 = y0 + _BOX_HEIGHT / 2, y1 - _BOX_HEIGHT / 2
        bend = (y1 - y0) / 2
        parts.append(
            f'<path d="M{x0:.0f} {y0:.0f}C{x0:.0f} {y0 + bend:.0f} {x1:.0f} {y1 - bend:.0f} '
            f'{x1:.0f} {y1:.0f}"/>'
        )
    for n, (x, y) in centres.items():
        kind = "end" if n.name in ("inputnode", "outputnode") else ""
        kind = "nested" if isinstance(n, Workflow) else kind
        parts.append(
            f'<rect class="{kind}" x="{x - widths[n] / 2:.0f}" y="{y - _BOX_HEIGHT / 2:.0f}" '
            f'width="{widths[n]:.0f}" height="{_BOX_HEIGHT}" rx="5"/>'
            f'<text x="{x:.0f}" y="{y:.0f}">{escape(n.name)}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def setup(app) -> dict:
    """Register the directive."""
    app.add_directive("workflow", WorkflowGraph)
    return {"parallel_read_safe": True, "version": "1"}
