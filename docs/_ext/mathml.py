"""Formulas as MathML, which browsers draw by themselves: no script from a network."""

from __future__ import annotations

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml


def inline(writer, node) -> None:
    """A formula in the text."""
    writer.body.append(tex2mathml(node.astext(), as_block=False))
    raise SkipNode


def block(writer, node) -> None:
    """A formula on a line of its own."""
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise SkipNode


def setup(app) -> dict:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "version": "1"}
