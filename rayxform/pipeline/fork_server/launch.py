"""The launcher: stands where Ray expects Python. ``launch.py SOCKET PYTHON AGENTS SCRIPT ARGUMENT...``.

Started with -I -S, and importing next to nothing, it takes 10 ms. A worker is asked of the fork server. In place of what is of
no use to a Ray of one machine and one job there is nothing. Any other script, and a worker for which there is no server, gets
the ordinary Python in this process's place.

A raylet waits until its two agents have imported 1 to 2 s of Python and told their ports. Where AGENTS is 1 the launcher
tells them: that of the dashboard's agent, which exports metrics, is -1, as where Ray is installed without it, and the agent is
left out; that of the agent of runtime environments is one that this process reserves for it, and the agent starts meanwhile.
"""

import os
import stat
import sys
from _socket import AF_INET, AF_INET6, AF_UNIX, SCM_RIGHTS, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket

WORKER_SCRIPT = "/ray/_private/workers/default_worker.py"

MONITORS = (
    "/ray/autoscaler/_private/monitor.py",  # starts and stops machines
    "/ray/autoscaler/v2/monitor.py",
    "/ray/_private/log_monitor.py",  # carries workers' output to the driver, which does not ask for it
)
DASHBOARD = "/ray/dashboard/dashboard.py"
"""Without its pages all that it does is to report usage. Like the monitors it takes 1 to 2 s of a core to start, and Ray waits
for it to say that it is ready, or to end, before it starts anything else."""

DASHBOARD_AGENT = "/ray/dashboard/agent.py"
DASHBOARD_AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
RUNTIME_ENV_AGENT = "/ray/_private/runtime_env/agent/main.py"
RUNTIME_ENV_AGENT_PORT = "runtime_env_agent_port"
_AGENT_NICENESS = 15

_FOR_EVER_S = "2147483647"
_GIVE_UP_AFTER_S = 60.0
"""How long to wait for the server, which may still import; Ray gives a worker as long to register."""


def ask(address: str, command: list[str]) -> bool:
    """Hand this process's command, environment, folder and standard streams to the server; whether it forked for them.

    A message is its length in eight bytes; the folder, the number of the command's words, these, and the environment, with
    NULs between. The answer is one byte.
    """
    environment = [b"%s=%s" % item for item in os.environb.items()]
    words = b"\0".join([os.getcwdb(), b"%d" % len(command), *map(os.fsencode, command), *environment])
    message = len(words).to_bytes(8, sys.byteorder) + words
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.settimeout(_GIVE_UP_AFTER_S)
        connection.connect(address)
        streams = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
        sent = connection.sendmsg([message], [(SOL_SOCKET, SCM_RIGHTS, streams)])
        if sent < len(message):  # to send nothing fails where the server has answered and gone
            connection.sendall(message[sent:])
        return connection.recv(1) == b"y"
    except OSError:
        return False
    finally:
        connection.close()


def tell_port(folder: str, node: str, name: str, port: int) -> None:
    """Tell a raylet an agent's port, as ``ray._raylet.persist_port`` does: in a file that appears as a whole."""
    path = f"{folder}/{name}_{node}"
    with open(f"{path}.new", "w") as file:
        file.write(str(port))
    os.rename(f"{path}.new", path)


def reserve_port(host: str) -> int:
    """A free port, which nobody else is given while this process lives, but which it may bind again (SO_REUSEADDR)."""
    reserved = socket(AF_INET6 if ":" in host else AF_INET)
    reserved.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    reserved.bind((host, 0))
    port = int(reserved.getsockname()[1])
    os.set_inheritable(reserved.detach(), True)
    return port


def stand_in_for_dashboard_agent(options: dict[str, str]) -> None:
    """Say that it offers nothing, and be a process that ends with the raylet, whose pipe its input is."""
    for name in DASHBOARD_AGENT_PORTS:
        tell_port(options["session-dir"], options["node-id"], name, -1)
    os.execvp("cat", ["cat"])


def announce_runtime_env_agent(options: dict[str, str]) -> str:
    """Say where it will be, and let it take its time; the option by which it is told."""
    port = reserve_port(options["node-ip-address"])
    tell_port(options["session-dir"], options["node-id"], RUNTIME_ENV_AGENT_PORT, port)
    os.setpriority(os.PRIO_PROCESS, 0, _AGENT_NICENESS)
    return f"--runtime-env-agent-port={port}"


def main() -> None:
    """Ask the server for a worker, be nothing, or become Python."""
    address, python, agents, *command = sys.argv[1:]
    script = next((word for word in command if not word.startswith("-")), "")
    if script.endswith(DASHBOARD) or (script.endswith(WORKER_SCRIPT) and ask(address, command)):
        return
    if script.endswith(MONITORS):
        os.execvp("sleep", ["sleep", _FOR_EVER_S])  # as a child that ended it would be a zombie of the driver's
    options = dict(word[2:].split("=", 1) for word in command if word.startswith("--") and "=" in word)
    if agents == "1" and script.endswith(DASHBOARD_AGENT) and stat.S_ISFIFO(os.fstat(0).st_mode):
        stand_in_for_dashboard_agent(options)
    if agents == "1" and script.endswith(RUNTIME_ENV_AGENT):
        command.append(announce_runtime_env_agent(options))
    os.execv(python, [python, *command])


if __name__ == "__main__":
    main()
