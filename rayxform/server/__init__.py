"""The endpoint that AWS's own clients talk to, and the pages at the same port: ``rayxform serve``.

``endpoint`` speaks AWS JSON 1.1, ``signatures`` says who calls and ``shapes`` what is asked; ``models``, ``jobs`` and ``tags``
are the operations over ``database``; ``keeper`` sees to it that every job that was accepted is run, by ``runs``, once.
"""

from rayxform.server.serving import DEFAULT_PORT, serve
from rayxform.server.settings import ServerSettings, read_settings

__all__ = ["DEFAULT_PORT", "ServerSettings", "read_settings", "serve"]
