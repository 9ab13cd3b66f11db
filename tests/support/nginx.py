"""nginx as a reverse proxy, with a configuration of a few lines."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from typing import TYPE_CHECKING

from tests.support import processes

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

NGINX = shutil.which("nginx")
_CONFIGURATION = """
daemon off;
error_log stderr;
pid nginx.pid;
events {{}}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  server {{
    listen 127.0.0.1:{port};
    location {prefix} {{
      {directives}
    }}
  }}
}}
"""


@contextlib.contextmanager
def reverse_proxy(folder: pathlib.Path, prefix: str, *directives: str) -> Iterator[str]:
    """Run nginx with one location until the block ends, and yield the location's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    text = _CONFIGURATION.format(port=port, prefix=prefix, directives="\n      ".join(directives))
    (folder / "nginx.conf").write_text(text)
    with processes.running([NGINX, "-p", folder, "-c", folder / "nginx.conf"], stderr=processes.DEVNULL):
        until = time.monotonic() + 20
        while True:
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < until, "nginx does not listen"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}{prefix}"
