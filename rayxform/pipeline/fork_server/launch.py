"""The launcher: stands where Ray expects Python. ``launch.py SOCKET PYTHON SCRIPT ARGUMENT...``.

Started with -I -S, and importing next to nothing, it takes 10 ms. A worker is asked of the fork server. In place of what is of
no use to a Ray of one machine and one job there is nothing. Any other script, and a worker for which there is no server, gets
the ordinary Python in this process's place.
"""

import os
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

WORKER_SCRIPT = "/ray/_private/workers/default_worker.py"

MONITORS = (
    "/ray/autoscaler/_private/monitor.py",  # starts and stops machines
    "/ray/autoscaler/v2/monitor.py",
    "/ray/_private/log_monitor.py",  # carries workers' output to the driver, which does not ask for it
)
DASHBOARD = "/ray/dashboard/dashboard.py"
"""Without its pages all that it does is to report usage. Like the monitors it takes 1 to 2 s of a core to start, and Ray waits
for it to say that it is ready, or to end, before it starts anything else."""

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


def main() -> None:
    """Ask the server for a worker, be nothing, or become Python."""
    address, python, *command = sys.argv[1:]
    script = next((word for word in command if not word.startswith("-")), "")
    if script.endswith(DASHBOARD) or (script.endswith(WORKER_SCRIPT) and ask(address, command)):
        return
    if script.endswith(MONITORS):
        os.execvp("sleep", ["sleep", _FOR_EVER_S])  # as a child that ended it would be a zombie of the driver's
    os.execv(python, [python, *command])


if __name__ == "__main__":
    main()
