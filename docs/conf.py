"""The documentation site: Sphinx over the Markdown of this folder and of what it links to. `make docs` builds it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "n2n-edge"
author = copyright = "the n2n-edge contributors"

extensions = ["myst_parser", "mathml", "repository", "command_reference"]
exclude_patterns = ["_build", "_ext"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # pages of benchmarks may skip a level

html_theme = "furo"
html_title = "n2n-edge"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
