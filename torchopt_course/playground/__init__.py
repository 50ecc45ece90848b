"""A page to play with optimizers: drag the start, the rate, β, and see the whole path at once.

``python -m torchopt_course.playground`` writes it: one HTML file that needs neither server nor internet. The
update is not written again for the browser: each rule is read as for every other engine, and printed as
JavaScript (:mod:`.javascript`); so are its coefficients, and the derivatives of the landscapes come from
:mod:`torchopt_course.autograd.symbolic`. So an optimizer of yours is on the page as it stands.
"""

from __future__ import annotations

from .page import page

__all__ = ["page"]
