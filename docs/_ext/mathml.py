"""Formulas as MathML, made while the site is built.

Every browser draws MathML itself: no script, nothing from the internet, and a screen reader can read it. A
formula that cannot be read is a warning, and so an error of the build, where MathJax would show a red box.
"""

from __future__ import annotations

import html
from typing import Any

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)
converter = LatexToMathML(fancy_error=False)


def mathml(latex: str, node: nodes.Node, *, display: bool) -> str:
    """The formula as a ``<math>`` element; its source, as text, where it cannot be read."""
    try:
        return converter.convert_with_local_state(latex, displaystyle=display)
    except LatexError as error:
        logger.warning("formula %r: %s", latex, error, location=node, type="math")
        return f"<code>{html.escape(latex)}</code>"


def visit_math(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext(), node, display=False))
    raise nodes.SkipNode


def visit_displaymath(translator: HTML5Translator, node: nodes.math_block) -> None:
    latex = node.astext()
    # As Sphinx does for MathJax: lines may be broken and aligned without saying so.
    if (r"\\" in latex or "&" in latex) and r"\begin{" not in latex:
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    number = (
        f'<span class="eqno">({get_node_equation_number(translator, node)})</span>' if node["number"] else ""
    )
    # The formula scrolls by itself where it is wider than a phone: so it can be reached by the keyboard, too.
    translator.body.append(
        translator.starttag(node, "div", CLASS="math-display", tabindex="0")
        + f"{mathml(latex, node, display=True)}{number}</div>\n"
    )
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
