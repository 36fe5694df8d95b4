"""What every nginx of the benchmark shares: one worker, its own folder, nothing of the machine's configuration."""

import os
import pwd
from pathlib import Path

from bench.processes import program

CONFIG = """\
{user}
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
worker_processes 1;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path {directory}/tmp; proxy_temp_path {directory}/tmp; fastcgi_temp_path {directory}/tmp;
    uwsgi_temp_path {directory}/tmp; scgi_temp_path {directory}/tmp;
    types {{ }}
    sendfile on; tcp_nopush on; tcp_nodelay on;
    keepalive_timeout 1h; keepalive_requests 100000000;
{http}
}}
"""


def nginx_command(directory: Path, http: str) -> list[str]:
    """Write a configuration around this `http` block and return the command that runs it."""
    # As root, nginx gives its worker to another user, who could not read the benchmark's folder.
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    (directory / "tmp").mkdir()
    config = directory / "nginx.conf"
    config.write_text(CONFIG.format(user=user, directory=directory, http=http))
    return [program("nginx"), "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(config)]
