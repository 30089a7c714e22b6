"""How the documentation is built: ``make docs``."""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch

import pmaf

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import figures  # noqa: E402
import solver_tables  # noqa: E402
from both_grounds import scraper  # noqa: E402
from mathml import font  # noqa: E402

solver_tables.write(HERE / "_solvers")
figures.write(HERE / "_figures")

project = "pmaf"
author = "pmaf contributors"
copyright = "pmaf contributors, MIT licence"
release = version = pmaf.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "sphinx_design",
    "sphinx_copybutton",
    "mathml",
]
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"pmaf {release}"
html_static_path = ["_static", font(HERE / "_fonts")]
html_css_files = ["pmaf.css"]
html_copy_source = html_show_sourcelink = False
exclude_patterns = ["_build", "_solvers", "_figures", "auto_examples/*.ipynb", "auto_examples/**/*.md5"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_use_rtype = False
nitpicky = False


def fresh_start(conf: dict[str, Any], file: str) -> None:
    """What an example has set is not there in the next."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "abort_on_example_error": True,
    "min_reported_time": 3600,
    "show_memory": False,
    "capture_repr": (),
    "write_computation_times": False,
    "show_signature": False,
    "download_all_examples": False,
    "image_scrapers": (scraper,),
    "reset_modules": ("matplotlib", fresh_start),
}
suppress_warnings = ["config.cache"]  # the gallery's settings hold functions
warnings.filterwarnings("ignore", category=DeprecationWarning, module="sphinx")
