"""How every picture is coloured."""

# Okabe and Ito's, told apart also without colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
