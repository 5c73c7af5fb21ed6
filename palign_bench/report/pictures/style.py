"""How every picture is saved."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

from matplotlib.figure import Figure


def save_figure(figure: Figure, base: Path) -> list[Path]:
    """Write ``<base>.png`` and ``<base>.pdf``, each atomically and without a date; return their paths."""
    paths = []
    for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
        path = base.with_name(f"{base.name}.{kind}")
        _write_bytes(path, buffer.getvalue())
        paths.append(path)
    return paths


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
