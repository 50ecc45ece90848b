"""How the site is built: `make docs`. Everything is local; nothing is fetched while building or reading."""

from __future__ import annotations

import os
import sys
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


def without_torchs(app: Any, name: str, cls: type, options: Any, bases: list[type]) -> None:
    """Torch's classes are bases of ours for isinstance() only, and have the same names."""
    bases[:] = [base for base in bases if not base.__module__.startswith("torch.")] or [object]


def setup(app: Any) -> None:
    app.connect("autodoc-process-bases", without_torchs)
