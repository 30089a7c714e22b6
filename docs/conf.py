"""How the documentation is built: ``make docs``."""

import sys
import warnings
from pathlib import Path

import pmaf

sys.path.insert(0, str(Path(__file__).parent))
import solver_tables

solver_tables.write(Path(__file__).parent / "_solvers")

project = "pmaf"
author = "pmaf contributors"
release = version = pmaf.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"pmaf {release}"
html_static_path: list[str] = []
exclude_patterns = ["_build", "_solvers", "auto_examples/*.ipynb", "auto_examples/**/*.md5"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_use_rtype = False
nitpicky = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "abort_on_example_error": True,
    "min_reported_time": 3600,
    "show_memory": False,
    "reset_modules": ("matplotlib",),
}
suppress_warnings = ["config.cache"]  # the gallery's settings hold functions
warnings.filterwarnings("ignore", category=DeprecationWarning, module="sphinx")
