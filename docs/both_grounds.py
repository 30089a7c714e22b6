"""The figures of the gallery twice: in dark ink, and in light ink for those who read light on dark."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.colors import same_color
from matplotlib.figure import Figure

PAPER, INK = "#131416", "#cfd0d0"  # furo's own, in the dark
# Which panel of an example's first figure is its thumbnail; the first, if nothing is said.
PANELS = {
    "discriminant": 1,
    "eight_point": 0,
    "fiedler": 1,
    "gravity_alignment": 1,
    "homography": 1,
    "normalised_cut": 2,
}
PANELS |= {
    "diffusion_tensors": 1,
    "second_order_pooling": 1,
    "normals": 1,
    "rotation_averaging": 2,
    "trust_region": 2,
    "pagerank": 0,
}
GETTERS = ("color", "facecolor", "edgecolor", "markeredgecolor", "markerfacecolor")


def scraper(block: tuple[Any, ...], block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save every figure of a block, as light and as dark, and close it."""
    source = Path(gallery_conf["src_dir"])
    lines = []
    example = Path(block_vars["src_file"]).stem.removeprefix("plot_")
    for number in plt.get_fignums():
        figure = plt.figure(number)
        light = Path(next(block_vars["image_path_iterator"]))
        if light.stem.endswith("_001"):
            panel(figure, PANELS.get(example), light)
            light = Path(next(block_vars["image_path_iterator"]))
        dark = light.with_name(f"{light.stem}_dark.png")
        settings = {"dpi": 120, "bbox_inches": "tight", "pad_inches": 0.1}
        figure.savefig(light, facecolor="white", **settings)
        darken(figure)
        figure.savefig(dark, facecolor=PAPER, **settings)
        name = example.replace("_", " ")
        for path, ground in ((light, "only-light"), (dark, "only-dark")):
            lines += [
                f".. image:: /{path.relative_to(source).as_posix()}",
                f"   :alt: {name}",
                f"   :class: {ground}",
                "",
            ]
    plt.close("all")
    return "\n".join(lines)


def panel(figure: Figure, index: int | None, path: Path) -> None:
    """Save one panel alone, or the whole figure."""
    figure.canvas.draw()
    box: Any = "tight"
    if index is not None:
        box = figure.axes[index].get_tightbbox().transformed(figure.dpi_scale_trans.inverted())
    figure.savefig(path, dpi=100, facecolor="white", bbox_inches=box, pad_inches=0.1)


def darken(figure: Figure) -> None:
    """Exchange black for a light ink and white for the dark ground, and leave every other colour."""
    exchange = (("black", INK), ("white", PAPER), (mpl.rcParams["legend.edgecolor"], "#555"))
    for artist in figure.findobj():
        for name in GETTERS:
            getter, setter = getattr(artist, f"get_{name}", None), getattr(artist, f"set_{name}", None)
            colour = getter() if getter and setter else None
            if isinstance(colour, str | tuple) and mpl.colors.is_color_like(colour):
                new = next((new for old, new in exchange if same_color(mpl.colors.to_rgb(colour), old)), None)
                if new and mpl.colors.to_rgba(colour)[3]:
                    setter(mpl.colors.to_rgba(new, mpl.colors.to_rgba(colour)[3]))
    for axes in figure.axes:
        axes.tick_params(which="both", color=INK, labelcolor=INK)
