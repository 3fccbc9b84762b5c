"""What can be known before anything starts: each check raises ConfigError, one sentence that names the setting and what to do.

``parley serve`` runs them all and starts nothing when one fails; ``parley doctor`` runs them one by one and reports. They are
for plain code outside an event loop, and leave nothing behind but the data folder.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path

from serve_app.credentials import Secrets
from serve_app.errors import ConfigError
from serve_app.settings import Settings

LOCK_WAIT_S = 2.0
"""How long the data folder's last holder may take to let go, as after a Ctrl-C just before."""


def run_all(settings: Settings, secrets: Secrets) -> None:
    """Every check, those that say most about a second start first. Raises ConfigError."""
    check_settings(settings)
    check_files(settings, secrets)
    check_auth(settings, secrets)
    check_cache(settings, secrets)
    check_ports(settings, secrets)
    check_data_dir(settings)


def check_settings(settings: Settings) -> None:
    """Settings that are each right but cannot work together, and files that settings name. Raises ConfigError."""
    companions = settings.companions
    if companions.port == settings.port:
        raise ConfigError(
            f"Setting PARLEY_COMPANIONS__PORT: {companions.port} is PARLEY_PORT, too; choose another port for one of them."
        )
    if settings.tool.retry_min_s > settings.tool.retry_max_s:
        raise ConfigError("Setting PARLEY_TOOL__RETRY_MIN_S is larger than PARLEY_TOOL__RETRY_MAX_S; make it smaller.")
    serve_config = settings.path(settings.serve_config)
    if not serve_config.is_file():
        raise ConfigError(
            f"Setting PARLEY_SERVE_CONFIG: there is no file {serve_config}; correct the path, or start in the project's folder."
        )


def check_files(settings: Settings, secrets: Secrets) -> None:
    """The models file, the tool servers' file, the provider's script, the prompts and the shadow file can be used.

    Raises ConfigError.
    """
    check_models(settings, secrets)
    check_tool_servers(settings)
    check_script(settings, secrets)
    check_prompts(settings)
    check_shadow(settings)


def check_auth(settings: Settings, secrets: Secrets) -> None:
    """The keys that tokens are verified with, as far as they are files, those that sign our own, and those that stored secrets
    are encrypted with. Raises ConfigError.
    """
    from serve_app.accounts.signing import find_signing_keys
    from serve_app.identity.connect import check_keys_file
    from serve_app.keys.connect import open_keys

    open_keys(secrets)
    check_keys_file(settings)
    if settings.auth.mode == "accounts":
        find_signing_keys(settings, secrets)


def check_cache(settings: Settings, secrets: Secrets) -> None:
    """A Redis that the settings ask for has its package and its address. Makes no connection. Raises ConfigError."""
    from serve_app.caching.connect import connect

    connect(settings, secrets)


def check_models(settings: Settings, secrets: Secrets) -> None:
    """The models file can be read and leaves a provider, the simulated one included. Raises ConfigError."""
    from serve_app.embedded import provider_url
    from serve_app.models.connect import connect
    from serve_app.telemetry import MemoryMetrics

    # Makes no connection: clients are made with the first call.
    asyncio.run(connect(settings, secrets, MemoryMetrics(), provider_url(settings, secrets)))


def check_tool_servers(settings: Settings) -> None:
    """``mcpservers.json`` can be read. Whether its servers answer is no reason not to start. Raises ConfigError."""
    from serve_app.embedded import tool_variables
    from serve_app.tools.config import load_servers

    load_servers(settings.path(settings.mcp_servers), tool_variables(settings))


def check_shadow(settings: Settings) -> None:
    """The file that says what live turns are mirrored to can be read, where there is to be one. Raises ConfigError."""
    from serve_app.turns.shadow_config import load_shadow

    load_shadow(settings)


def check_script(settings: Settings, secrets: Secrets) -> None:
    """The simulated provider's script can be read, where it is going to be. Raises ConfigError."""
    from serve_app.companions.errors import CompanionError
    from serve_app.companions.provider.script import load_script
    from serve_app.embedded import companions_of

    script = settings.companions.script
    if script is None or "provider" not in companions_of(settings, secrets):
        return
    try:
        load_script(settings.path(script))
    except CompanionError as error:
        raise ConfigError(f"Setting PARLEY_COMPANIONS__SCRIPT: {error}") from error


def check_prompts(settings: Settings) -> None:
    """Every prompt can be used and the required ones are there. Raises ConfigError."""
    from serve_app.prompting.connect import open_prompts

    async def read() -> None:
        await (await open_prompts(settings, Secrets.from_environment())).close()

    asyncio.run(read())


def check_ports(settings: Settings, secrets: Secrets) -> None:
    """The ports that ``parley serve`` is going to listen on are free. Raises ConfigError."""
    from serve_app.embedded import companions_of

    check_port(settings.host, settings.port, "PARLEY_PORT", "PARLEY_HOST")
    if companions_of(settings, secrets):
        companions = settings.companions
        check_port(companions.host, companions.port, "PARLEY_COMPANIONS__PORT", "PARLEY_COMPANIONS__HOST")


def check_port(host: str, port: int, setting_name: str, host_setting: str | None = None) -> None:
    """A server may listen on ``host`` and ``port``. Raises ConfigError that names ``setting_name`` and who has the port.

    ``host_setting`` is named instead where the address is what is wrong.
    """
    address_setting = host_setting or setting_name
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(
            f"Setting {address_setting}: {host!r} is no address of this machine; use 127.0.0.1, or an address it has."
        ) from error
    with socket.socket(family, kind, protocol) as probe:
        # As servers do: connections of an earlier run that are still being forgotten are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise _unusable_port(error, host, port, setting_name, address_setting) from error


def _unusable_port(error: OSError, host: str, port: int, setting_name: str, address_setting: str) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"Setting {setting_name}: port {port} on {host} is taken{_listener(port)}; "
            "stop what listens there, or choose another port."
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return ConfigError(
            f"Setting {setting_name}: this user may not listen on port {port}; choose a port above 1023."
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(
            f"Setting {address_setting}: {host} is no address of this machine; use 127.0.0.1, or an address it has."
        )
    return ConfigError(
        f"Setting {setting_name}: nothing can listen on {host}:{port} ({error.strerror or error}); choose another one."
    )


def _listener(port: int) -> str:
    """Who listens, as far as this user may see it; else nothing."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except (psutil.Error, OSError):
        pass
    return ""


def check_data_dir(settings: Settings) -> None:
    """The data folder can be made and written, no other process holds it, and its database opens. Raises ConfigError.

    A database of an older version is brought up to date, as the start would do.
    """
    folder = settings.path(settings.data_dir)
    check_writable(folder)
    if settings.store == "local":
        asyncio.run(_open_store(folder))


def check_writable(folder: Path) -> None:
    """``folder`` exists, or can be made, and this user may read and write it. Raises ConfigError."""
    from serve_app.storage.sqlite.folder import unusable

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        # Of a file in the way, mkdir says only that it exists.
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror or str(error)
        raise unusable(folder, reason) from error
    check_access(folder)


def check_access(folder: Path) -> None:
    """``folder`` is one, and this user may read and write it. Raises ConfigError."""
    from serve_app.storage.sqlite.folder import unusable

    if not folder.is_dir():
        raise unusable(folder, "it is a file")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise unusable(folder, "this user may not read and write it")


async def _open_store(folder: Path) -> None:
    from serve_app.storage.sqlite import SqliteStore

    store = await SqliteStore.open(folder, lock_wait_s=LOCK_WAIT_S)
    try:
        await store.check()
    finally:
        await store.close()
