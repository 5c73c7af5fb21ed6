"""How every picture is coloured and saved."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from palign_bench.files import write_atomically

# Okabe and Ito's, told apart also without colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")


def save_figure(figure: Figure, base: Path) -> list[Path]:
    """Write ``<base>.png`` and ``<base>.pdf``, each atomically and without a date; return their paths."""
    paths = []
    for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
        path = base.with_name(f"{base.name}.{kind}")
        write_atomically(path, buffer.getvalue())
        paths.append(path)
    return paths
