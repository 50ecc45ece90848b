"""How the site is built: `make docs`. Everything is local; nothing is fetched while building or reading."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

# For the kernels of the notebooks: small work on a shared machine, and their working folder is docs/lecture.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(DOCS.parent), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(DOCS.parent))

import torch  # noqa: E402

import torchopt_course  # noqa: E402 (only now is it on the path)

project = "torchopt_course"
author = "the authors of torchopt_course"
version = release = torchopt_course.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "mathml",
    "pages",
]
exclude_patterns = ["_build", "_ext", "**.ipynb_checkpoints"]

# -- pages and notebooks
myst_enable_extensions = ["dollarmath", "substitution"]
myst_heading_anchors = 3
myst_substitutions = {
    name: ", ".join(
        f"`{theirs}`" for theirs in sorted(module.__all__) if getattr(module, theirs) is getattr(ours, theirs)
    )
    for name, module, ours in (
        ("torch_optim_names", torch.optim, torchopt_course),
        ("torch_scheduler_names", torch.optim.lr_scheduler, torchopt_course.lr_scheduler),
    )
}
nb_execution_mode = "force"  # a cached output would survive a change of the package
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables in outputs

# -- reference
templates_path = ["_templates"]
autosummary_generate = True
autodoc_member_order = "bysource"
# What overrides a method without a word of its own is described with the base; torch's words are torch's.
autodoc_inherit_docstrings = False
# Public to other files of the autograd, not to its users.
INTERNAL = (
    "Symbol",
    "SymbolicLevel",
    "moved",
    "adopt",
    "without_reverse",
    "bind",
    "compute",
    "plan",
    "differentiates",
)
autodoc_default_options = {"exclude-members": ", ".join(INTERNAL)}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False

# -- look
html_theme = "furo"
pygments_dark_style = "monokai"
html_math_renderer = "mathml"
html_title = "torchopt_course"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
copybutton_exclude = ".linenos, .gp, .go"


PUBLIC = (torchopt_course, torchopt_course.autograd, torchopt_course.lr_scheduler, torchopt_course.transforms)


def public_bases(app: Any, name: str, cls: type, options: Any, bases: list[Any]) -> None:
    """In the place of private bases those that a reader knows; what torch's of the same names are for."""

    def known(base: type) -> Iterator[type | str]:
        place = base.__module__.removesuffix(f".{base.__name__.lower()}")
        if base.__name__ == cls.__name__:
            yield f"``{place}.{base.__name__}`` (for isinstance() only)"
        elif place.split(".")[0] in ("torch", "builtins") or any(base.__name__ in p.__all__ for p in PUBLIC):
            yield base
        else:
            for parent in base.__bases__:
                yield from known(parent)

    found = dict.fromkeys(shown for base in bases for shown in known(base))
    bases[:] = [base for base in found if base is not object] or [object]


def setup(app: Any) -> None:
    app.connect("autodoc-process-bases", public_bases)
