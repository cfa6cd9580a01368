"""
Private servers: real ones, on a free port of this machine only, gone with the process that started them.

Nothing is installed and no server that runs already is touched. `runclaim dev`, the demo and the tests
share this package; it is not meant for a broker that other people depend on.
"""

from runclaim.servers.machine import ServerMissing
from runclaim.servers.process import Server
from runclaim.servers.valkey import valkey

__all__ = ["Server", "ServerMissing", "valkey"]
