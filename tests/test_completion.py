"""The shells complete commands, options and files; bash is asked itself."""

import shutil
import subprocess
import sys

import pytest


def script(shell):
    return subprocess.run(
        [sys.executable, "-m", "rayxform", "completion", shell], capture_output=True, text=True, check=True, timeout=60
    ).stdout


COMPLETE = """
source {script}
COMP_WORDS=({words} "$1")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
COMP_LINE="${{COMP_WORDS[*]}}"; COMP_POINT=${{#COMP_LINE}}
function=$(complete -p rayxform | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function rayxform "$1" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "begun", "expected"),
    [
        ("rayxform", "st", {"status", "stop"}),
        ("rayxform", "comp", {"completion"}),
        ("rayxform run", "--rest", {"--restart"}),
        ("rayxform submit", "--no", {"--no-wait"}),
        ("rayxform run", "jo", {"job.yaml"}),
        ("rayxform completion", "z", {"zsh"}),
    ],
)
def test_bash_completes(tmp_path, words, begun, expected):
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    (tmp_path / "completion").write_text(script("bash"))
    (tmp_path / "job.yaml").write_text("")
    code = COMPLETE.format(script=tmp_path / "completion", words=words)
    done = subprocess.run(
        ["bash", "--norc", "-c", code, "bash", begun], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert set(done.stdout.split()) == expected, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_get_a_script(shell):
    assert "rayxform" in script(shell)


def test_another_shell_is_refused():
    done = subprocess.run([sys.executable, "-m", "rayxform", "completion", "fish"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "bash" in done.stderr
