"""The packages in a model's ``requirements.txt``, installed beside the environment and never into it.

AWS runs ``pip install -r`` in a container of the model's own (sagemaker-pytorch-inference-toolkit, ``torchserve.py``).
A worker shares its environment with Ray and with other jobs, so the packages go into a folder that only the model's
workers put on sys.path. ``pip install --target`` by itself would bring every dependency again, torch included, since it
does not look at what is installed. Hence two steps: pip resolves against the environment (``--dry-run --report``), and
only what it would add is installed into the folder, without looking for dependencies again.

A package that the worker itself has imported by then (Ray brings numpy, pyarrow and others) stays at the version that
it has: no folder on sys.path can replace what is loaded.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement

from rayxform.cache import keep
from rayxform.errors import ModelLoadError

REQUIREMENTS_FILE: Final = "requirements.txt"

_N_LAST_LINES: Final = 15
_MAX_NAME_BYTES: Final = 255
_PIP_ENVIRONMENT: Final = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PIP_USER": "0",  # --target and --user exclude each other
}


@dataclass(frozen=True)
class _Line:
    """A line of a requirements file: a requirement, an option of pip's, or a path or URL for pip to understand."""

    text: str
    requirement: Requirement | None = None

    @property
    def is_option(self) -> bool:
        return self.text.startswith("-")

    @property
    def is_satisfied(self) -> bool:
        """Whether the environment has it. Extras and URLs are left to pip to judge."""
        if self.requirement is None or self.requirement.extras or self.requirement.url:
            return False
        if self.requirement.marker is not None and not self.requirement.marker.evaluate():
            return True
        try:
            version = importlib.metadata.version(self.requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return False
        return self.requirement.specifier.contains(version, prereleases=True)


def install_requirements(requirements: Path, target_root: Path, environment: Mapping[str, str] | None = None) -> Path | None:
    """Install what a requirements file asks for and the environment lacks.

    One process installs, the others wait for it; what is there already is reused.

    Args:
        requirements: a requirements file as pip reads it. ``-r`` is followed; other options go to pip as they are.
        target_root: the folder below which packages are installed; made where it is missing.
        environment: variables for pip, such as the job's PIP_INDEX_URL, on top of this process's.

    Returns:
        The folder to put on sys.path, before the user's code is imported; None if nothing is missing.

    Raises:
        ModelLoadError: the file cannot be read, or pip failed; with pip's last lines.
    """
    lines = _lacking(requirements)
    if not lines:
        return None
    folder = target_root / _fingerprint(lines, requirements.parent)
    try:
        keep(folder, lambda new: _install(requirements, lines, new, environment or {}))
    except OSError as error:
        raise ModelLoadError(
            f"the packages of {requirements} cannot be installed below {target_root}: {error}. "
            "Check that the folder can be written and has room."
        ) from error
    return folder if any(folder.iterdir()) else None


def are_met(requirements: Path) -> bool:
    """Whether the environment has what a requirements file asks for, so that nothing is to be installed."""
    try:
        return not _lacking(requirements)
    except ModelLoadError:
        return False


def _lacking(requirements: Path) -> list[_Line]:
    """What pip has to look at; empty where there is no requirement among it."""
    lines = [line for line in _read(requirements) if not line.is_satisfied]
    return [] if all(line.is_option for line in lines) else lines


def _read(requirements: Path, seen: frozenset[Path] = frozenset()) -> list[_Line]:
    try:
        text = requirements.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{requirements} cannot be read: {error}. Save it as UTF-8 text.") from error
    seen |= {requirements.resolve()}
    lines: list[_Line] = []
    for line in re.sub(r"\\\r?\n", "", text).splitlines():
        stripped = re.sub(r"(^|\s+)#.*$", "", line).strip()
        nested = re.match(r"(?:-r\s*|--requirement(?:\s+|=))(.+)", stripped)
        if nested is None:
            lines += [_parse(stripped, requirements.parent)] if stripped else []
        elif (other := requirements.parent / nested[1].strip()).resolve() not in seen:
            lines += _read(other, seen)
    return lines


def _parse(text: str, folder: Path) -> _Line:
    # An editable install needs a .pth file, which counts in site-packages only.
    text = re.sub(r"^(?:-e\s*|--editable(?:\s+|=))", "", text)
    constraint = re.match(r"(?:-c\s*|--constraint(?:\s+|=))(.+)", text)
    if constraint is not None:  # pip finds it beside the file that names it, and that will be another file
        return _Line(f"-c {folder / constraint[1].strip()}" if "://" not in text else text)
    try:
        return _Line(text, Requirement(re.split(r"\s--", text, maxsplit=1)[0]))
    except InvalidRequirement:
        return _Line(text)


def _fingerprint(lines: list[_Line], folder: Path) -> str:
    """Name what is installed: the lines, the interpreter, and the state of every local file that a line names."""
    parts = [sys.version, sysconfig.get_platform(), *(line.text for line in lines)]
    for line in lines:
        for path in (folder / word for word in line.text.split() if len(word) < _MAX_NAME_BYTES):
            files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.is_file() else []
            parts += [f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files if file.is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _install(requirements: Path, lines: list[_Line], packages: Path, environment: Mapping[str, str]) -> None:
    packages.mkdir()
    with tempfile.TemporaryDirectory(prefix="rayxform-pip-") as folder:
        wanted, report = Path(folder, "wanted.txt"), Path(folder, "report.json")
        wanted.write_text("\n".join(line.text for line in lines) + "\n", encoding="utf-8")
        _pip(requirements, environment, "--dry-run", "--report", str(report), "-r", str(wanted))
        missing = json.loads(report.read_text(encoding="utf-8"))["install"]
        if missing:
            pinned = _pinned(lines, missing)
            wanted.write_text("\n".join(pinned) + "\n", encoding="utf-8")
            _pip(requirements, environment, "--no-deps", "--target", str(packages), "-r", str(wanted))


def _pinned(lines: list[_Line], missing: list[dict[str, Any]]) -> list[str]:
    """The options, what comes by path or URL as it was written, and the rest by the versions that pip chose."""
    with_hashes = any("--hash" in line.text or line.text == "--require-hashes" for line in lines)
    pinned = [line.text for line in lines if line.is_option]
    pinned += [line.text for line in lines if not line.is_option and (line.requirement is None or line.requirement.url)]
    for package in missing:
        if package["is_direct"]:
            continue
        text = f"{package['metadata']['name']}=={package['metadata']['version']}"
        hashes = package["download_info"].get("archive_info", {}).get("hashes", {}) if with_hashes else {}
        pinned.append(text + "".join(f" --hash={kind}:{value}" for kind, value in hashes.items()))
    return pinned


def _pip(requirements: Path, environment: Mapping[str, str], *arguments: str) -> None:
    done = subprocess.run(  # noqa: S603 - the arguments are ours, the file is the user's to run
        [sys.executable, "-m", "pip", "install", "--quiet", *arguments],
        cwd=requirements.parent,
        env=os.environ | dict(environment) | _PIP_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return
    last_lines = "\n".join(done.stdout.strip().splitlines()[-_N_LAST_LINES:])
    remedy = "Correct the file, or install the packages into the workers' environment beforehand."
    if "No module named pip" in done.stdout or "no such option" in done.stdout:
        remedy = "It needs pip 22.2 or later in the workers' environment (python -m ensurepip --upgrade)."
    raise ModelLoadError(f"{requirements} cannot be installed (pip exit code {done.returncode}). {remedy}\n{last_lines}")
