"""`pip install .` elsewhere gives a `palign-bench` that needs no checkout."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.command import environment, table

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip builds it (which fetches the build backend from the package index)."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", str(CHECKOUT), "--no-deps", "--wheel-dir", str(folder), "--quiet"]
    built = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("palign_bench-*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_code_data_and_configuration(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("palign_bench", "baselines"):
        here = {p.relative_to(CHECKOUT).as_posix() for p in (CHECKOUT / folder).rglob("*.py")}
        assert here <= names, here - names
    configured = {f"palign_bench/conf/{p.relative_to(CHECKOUT / 'conf')}" for p in (CHECKOUT / "conf").rglob("*.yaml")}
    assert configured <= names, configured - names
    read = [
        p for p in (CHECKOUT / "palign_bench").rglob("*.*") if p.suffix in (".yaml", ".md", ".tex", ".html", ".txt")
    ]
    assert len(read) > 10 and {p.relative_to(CHECKOUT).as_posix() for p in read} <= names
    assert "palign_bench/questionnaire/data/ipip_neo_300.csv" in names
    assert {f"palign_bench/organism/weights/{n}" for n in ("model.safetensors", "tokenizer.json", "made.json")} <= names
    assert not [name for name in names if name.startswith(("tests/", "runs/")) or name.endswith((".pkl", ".gguf"))]


@pytest.mark.slow
def test_an_installed_program_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment that borrows this one's packages, but not the checkout that is installed in it."""
    place = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    # A plain path line: the .pth files in that folder, the editable install's among them, are not followed from here.
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, "--force-reinstall", "--ignore-installed", str(wheel)], check=True, capture_output=True)

    def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(place / "bin" / arguments[0]), *arguments[1:]],
            cwd=tmp_path,
            env={k: v for k, v in environment(tmp_path).items() if k != "PYTHONPATH"},
            capture_output=True,
            text=True,
        )

    found = ran("python", "-c", "import palign_bench, baselines; print(palign_bench.__file__, baselines.__file__)")
    assert found.stdout.count(str(place)) == 2, found.stdout + found.stderr
    told = ran("palign-bench", "run", "--help")
    assert told.returncode == 0 and "method: " in told.stdout and "few_shot" in told.stdout, told.stderr
    arguments = ["experiment=table1", "method=floors", "respondents=simulated", "respondents.limit=12"]
    floors = ran("palign-bench", *arguments, "tracking=none")
    assert floors.returncode == 0, floors.stderr
    frame = table(tmp_path / "runs").set_index("method")
    assert len(frame) == 11 and frame.loc["truth", "composite"] == 0
    written = {path.name for path in (tmp_path / "runs" / "table1").iterdir()}
    assert written == {"organism-corrected", "commands"}
