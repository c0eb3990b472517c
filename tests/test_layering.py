"""The layers of the package: a module imports lower ones only, and siblings never import each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rayxform"
LAYERS = {
    "errors": 0,
    "_version": 0,
    "core": 1,
    "cache": 1,
    "ending": 1,
    "locking": 0,
    "priority": 0,
    "processes": 1,
    "variables": 1,
    "warm_process": 1,
    "spec": 2,
    "storage": 3,
    "model": 3,
    "pipeline": 4,
    "api": 5,
    "ray_jobs": 5,
    "transformer": 6,
    "console": 6,
    "pages": 6,
    "server": 7,
    "cli": 8,
    "__init__": 8,
    "__main__": 9,
}
MODULES = sorted(PACKAGE.rglob("*.py"))
HOMES = {
    "ray": {
        "ray_jobs.py",
        *(f"pipeline/{name}.py" for name in ("cluster", "dataset", "metrics", "own_ray", "partitioning", "seams", "worker")),
    },
    "torch": {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "model").rglob("*.py")},
    "fsspec": {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "storage").glob("*.py")},
    "pydantic": {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "spec").glob("*.py")},
    "rich": {"console.py"},
    "aiohttp": {"model/server.py", "ray_jobs.py"},
    "botocore": {"server/shapes.py"},
    "sqlalchemy": {f"server/{name}.py" for name in ("database", "jobs", "keeper", "listing", "models", "web")},
    "starlette": {"server/app.py", "server/web.py"},
    "uvicorn": {"server/serving.py"},
    "jinja2": {"pages/rendering.py"},
    "markupsafe": {"pages/rendering.py"},
    "PIL": {"pages/pictures.py"},
    "tenacity": {"model/retrying.py", "storage/retrying.py"},
}


def imports_of(path):
    """Every module that is imported, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def unit_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_lower_layers_only(path):
    unit = unit_of(path)
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "rayxform" and len(parts) > 1 and parts[1] != unit:
            assert LAYERS[parts[1]] < LAYERS[unit], f"{unit} imports {name}"


@pytest.mark.parametrize("library", HOMES)
def test_a_library_has_one_home(library):
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if any(name.split(".")[0] == library for name in imports_of(path))
    }
    assert importers <= HOMES[library]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_stays_readable(path):
    assert len(path.read_text().splitlines()) <= 400


def test_the_bare_import_stays_light():
    heavy = ["ray", "torch", "fsspec", "pyarrow", "pandas", "numpy", "rich", "jsonpath_ng", "aiohttp", "jinja2", "PIL"]
    code = f"import sys, rayxform; print(rayxform.__version__, *(name for name in {heavy} if name in sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["0.1.0"]
