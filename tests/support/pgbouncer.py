"""A real PgBouncer in transaction mode in front of a PostgreSQL, on a free port.

``PGBOUNCER`` names the program; otherwise the one on ``PATH`` is used. It refuses to run as root, so a user
namespace stands in, as for PostgreSQL.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.postgres import NoServer, free_port
from tests.support.sidecar_process import wait_until

_UNSHARE = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]


@contextmanager
def pgbouncer(database_url: str) -> Iterator[str]:
    """Give the URL of the same database through a pool of two server connections. Raises NoServer."""
    program = os.environ.get("PGBOUNCER") or shutil.which("pgbouncer")
    if program is None:
        raise NoServer("no PgBouncer: apt-get install pgbouncer, or name one in PGBOUNCER")
    parts, port = urlsplit(database_url), free_port()
    folder = Path(tempfile.mkdtemp(prefix="readygate-bouncer-"))
    (folder / "users").write_text('"postgres" ""\n')
    (folder / "bouncer.ini").write_text(f"""
[databases]
* = host=127.0.0.1 port={parts.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder / "users"}
pool_mode = transaction
default_pool_size = 2
server_check_query = select 1
""")
    become = _UNSHARE if os.geteuid() == 0 else []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*become, program, str(folder / "bouncer.ini")], stdout=log, stderr=log)
    try:
        wait_until(
            lambda: process.poll() is not None or b"process up" in (folder / "log").read_bytes(),
            10,
            "PgBouncer is not up",
        )
        if process.poll() is not None:
            raise NoServer(f"PgBouncer ended: {(folder / 'log').read_text()}")
        yield f"postgresql://postgres@127.0.0.1:{port}{parts.path}?pgbouncer=true"
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
