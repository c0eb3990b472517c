"""A job's own Ray knows its processes by a token that nobody else sees, and leaves none behind."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, ray, sys
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from rayxform.pipeline.cluster import ray_session
from rayxform.pipeline.fork_server import warming_up

def seen():
    return os.environ.get("RAY_AUTH_TOKEN", "")

def variables():
    return sorted(name for name in os.environ if name.startswith("RAY_AUTH"))

tokens = set()
for _ in range(int(sys.argv[1])):
    with warming_up(None) as fork_server, ray_session(None, fork_server):
        tokens.add(ray.get(ray.remote(seen).remote()))
    print(variables(), is_token_auth_enabled())
print(sorted(map(len, tokens)))
"""


def sessions(number, **variables):
    known = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_AUTH", "RAY_ADDRESS"))}
    command = [sys.executable, "-c", SCRIPT, str(number)]
    return subprocess.run(command, env=known | variables, capture_output=True, text=True, timeout=120)


def test_it_needs_no_home_folder_and_ends_with_the_session(tmp_path):
    (tmp_path / "file").touch()
    ended = sessions(2, HOME=str(tmp_path / "file" / "home"))
    assert ended.stdout == "[] False\n[] False\n[64, 64]\n", ended.stderr


def test_a_token_that_is_there_counts(tmp_path):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    ended = sessions(1, HOME=str(tmp_path))
    assert ended.stdout.splitlines()[-1] == "[0]", ended.stderr


def test_workers_that_end_for_a_token_that_the_cluster_does_not_ask_for_say_so():
    """Ray's words for it are those of a cluster without tokens, joined as ``auto`` by a process that had one."""
    from ray.core.generated.common_pb2 import ActorDiedErrorContext
    from ray.exceptions import ActorDiedError

    from rayxform.errors import EngineError
    from rayxform.pipeline.cluster import engine_errors

    def died(reason):
        return ActorDiedError(ActorDiedErrorContext(error_message=reason, actor_id=bytes(16)))

    with pytest.raises(EngineError, match="set RAY_AUTH_MODE=disabled$"), engine_errors():
        raise died("The actor never ran - it was cancelled before it started running.")
    with pytest.raises(EngineError, match="(?s)ActorDiedError: .*out of memory$"), engine_errors():
        raise died("out of memory")
