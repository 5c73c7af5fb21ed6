"""How every picture looks."""

from pathlib import Path

# Okabe and Ito's, told apart also without colour vision.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GREY = COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555",
)  # fmt: skip
STYLE = Path(__file__).with_name("style.mplstyle")  # for `matplotlib.rc_context`, which decorates what makes a figure
