"""All settings, read once and passed down.

Precedence: command line, then ``PARLEY_*`` environment variables (nested names joined by ``__``; the command line reads
``.env`` into the environment first), then the YAML file named by ``--config`` or ``PARLEY_CONFIG``, then the defaults
here, which run everything on one machine without any account. Secrets are not settings: they come from the environment
only, by ``credentials``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from serve_app.credentials import Secrets
from serve_app.errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
"""Where ``configs`` and ``prompts`` are when their settings are relative and the working folder has none."""

SHIPPED = {("configs",), ("prompts",), ("serve_config.yaml",)}

Port = Annotated[int, Field(ge=1, le=65535)]

_ORIGIN = re.compile(r"https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")
_LOOPBACK_URL = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]+)?(?:/.*)?")


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class AuthSettings(_Group):
    mode: Literal["development", "jwt", "entra", "accounts"] = "development"
    """``development``: headers choose who one is, which production refuses. ``jwt``: tokens of an identity provider. ``entra``:
    tokens of Microsoft Entra ID. ``accounts``: names and passwords that Parley keeps itself."""
    issuer: str | None = None
    """``iss`` of every token (``jwt``, which needs it; ``accounts``, where it is ``parley`` by itself)."""
    audience: str | None = None
    """What every token must name in ``aud`` (``jwt``, which needs it; ``accounts``, where it is ``parley`` by itself)."""
    client_id: str | None = None
    """The application's id, which every token must have for ``aud`` (``entra``, which needs it)."""
    authority: str = "https://login.microsoftonline.com"
    """Where ``entra`` tokens come from; a national cloud has its own."""
    jwks: str | None = None
    """The issuer's public keys: a file or an https address. ``jwt`` needs it; ``entra`` knows where they are."""
    subject_claim: Annotated[str, Field(min_length=1, max_length=128)] = "sub"
    """The claim with the issuer's id of the user (``jwt``)."""
    tenant_claim: Annotated[str, Field(min_length=1, max_length=128)] = "tenant_id"
    """The claim with the issuer's id of the user's tenant (``jwt``)."""
    roles_claim: Annotated[str, Field(min_length=1, max_length=128)] = "roles"
    """The claim with the user's roles, one or a list; it may be missing (``jwt``)."""
    leeway_s: Annotated[float, Field(ge=0, le=300)] = 30.0
    """How far the issuer's clock and ours may differ."""
    jwks_ttl_s: PositiveFloat = 3_600.0
    """How long keys are used before they are read again."""
    jwks_stale_s: PositiveFloat = 86_400.0
    """How long they may be used while they cannot be read again."""
    jwks_min_refetch_s: PositiveFloat = 10.0
    """Shortest time between two readings, however many tokens name a key that nobody knows."""
    jwks_timeout_s: PositiveFloat = 5.0
    """How long one reading may take."""
    access_token_s: Annotated[int, Field(ge=60, le=3_600)] = 900
    """How long an access token of ours is good (``accounts``, as everything below)."""
    session_days: Annotated[int, Field(ge=1, le=365)] = 14
    """How long one stays logged in without the password."""
    reset_s: Annotated[int, Field(ge=300, le=604_800)] = 86_400
    """How long the one-time token that sets a password is good."""
    password_min_chars: Annotated[int, Field(ge=8, le=64)] = 12
    """Shortest password."""
    password_max_age_days: Annotated[int, Field(ge=1, le=3_650)] | None = None
    """How long a password is good; unset: for ever."""
    lockout_attempts: Annotated[int, Field(ge=3, le=100)] = 5
    """Wrong passwords in a row before an account is locked."""
    lockout_s: Annotated[int, Field(ge=10, le=86_400)] = 900
    """How long it is locked then, and for how long an attempt counts."""
    logins_per_minute: PositiveInt = 60
    """Logins, password changes and resets from one address, per Ingress replica, where it is known (``forwarded_hops``)."""


class ConversationSettings(_Group):
    prompt: str = "assistant"
    """Name of the prompt (a folder below ``prompts_dir``) for new conversations."""
    role_prompts: dict[str, str] = {}
    """Prompts for users of a role, as JSON: ``{"sales": "sales-coach"}``. The first of a user's roles that is named wins."""
    history_messages: Annotated[int, Field(ge=0, le=200)] = 16
    """Newest messages that go into the prompt, tokens permitting."""
    titles: bool = True
    """Make a title with the utility model beside the first turn."""
    on_busy: Literal["reject", "queue", "interrupt"] = "reject"
    """What a query does while another turn of the conversation runs: it is refused, waits, or stops the running one."""
    max_waiting: Annotated[int, Field(ge=1, le=64)] = 8
    """Most queries of a conversation that wait (``queue``)."""


class TurnSettings(_Group):
    max_steps: Annotated[int, Field(ge=1, le=64)] = 8
    """Most model calls of one turn; the last one is made without tools."""
    max_parallel_tools: Annotated[int, Field(ge=1, le=64)] = 8
    """Tool calls of one turn that run at once."""
    timeout_s: PositiveFloat = 300.0
    """Longest turn, from acceptance to its terminal event."""
    model_timeout_s: PositiveFloat = 120.0
    """Longest model call."""
    tool_timeout_s: PositiveFloat = 60.0
    """Upper bound on a tool call; a server's own ``timeout_s`` can only shorten it."""
    max_response_bytes: PositiveInt = 1_048_576
    """Longest answer; a longer one fails."""
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Most attempts at one step across owners, then the turn fails."""
    lease_s: PositiveFloat = 5.0
    """How long a turn belongs to its owner without a sign of life."""
    renew_s: PositiveFloat = 1.5
    """How often a silent turn renews its lease, and hears that it is to stop."""
    sweep_s: PositiveFloat = 5.0
    """How often a Turns replica looks for turns that lost their owner."""
    flush_ms: Annotated[int, Field(ge=0, le=1000)] = 25
    """Time between two appends of one replica, half of it where the one before was late; the first delta of a step never
    waits for it."""
    durability: Literal["sync", "async", "exit"] = "sync"
    """``sync``: what is shown is stored first. ``async``: text is shown first and stored every ``commit_s``. ``exit``: it is
    stored when its step has ended. What was asked and how a turn ended are always stored first."""
    commit_s: PositiveFloat = 1.0
    """How often shown text is stored under ``async``; a commit renews the lease as well."""
    store_patience_s: PositiveFloat = 60.0
    """How long appends are tried again while the store is away; then the turn is left to be taken over."""
    max_running: PositiveInt = 500
    """Turns one replica runs at most; the sweeper takes no more."""
    max_running_batch: PositiveInt = 16
    """Trials, an evaluation's turns, that one replica runs at most; one at a time while live turns leave no room."""
    max_tool_calls: Annotated[int, Field(ge=1, le=256)] = 32
    """Tool calls of one step; what a model asks for beyond is refused, and it is told."""
    offer_ttl_s: PositiveFloat = 5.0
    """How long a Turns replica may use a list of tools it has seen."""
    approval_timeout_s: Annotated[float, Field(ge=1, le=86_400)] = 900.0
    """How long a tool call waits for the user's approval before it counts as declined; the turn's time stands still meanwhile."""
    title_wait_s: PositiveFloat = 2.0
    """How long a stream stays open after its turn for the conversation's title."""


class StoreSettings(_Group):
    event_retention_s: PositiveFloat = 86_400.0
    """How long the events of an ended turn can be replayed; messages stay."""
    prune_every_s: PositiveFloat = 3_600.0
    """How often what is past retention is removed."""
    max_batch: PositiveInt = 1_000
    """Most operations in one group commit."""
    max_queue: PositiveInt = 10_000
    """Writes waiting before the store refuses more as overloaded."""


class AzureSettings(_Group):
    """Keys come from ``AZURE_COSMOS_KEY`` and ``AZURE_STORAGE_KEY``; without one, Entra ID is asked (``azure-identity``)."""

    cosmos_endpoint: str | None = None
    """``https://<account>.documents.azure.com:443/``"""
    cosmos_database: str = "parley"
    """Database that ``parley store init`` makes."""
    cosmos_max_rus: Annotated[int, Field(ge=0, le=1_000_000)] = 4_000
    """Highest throughput (RU/s) of the database, which all containers share and Azure scales down to a tenth by itself; 0
    for a serverless account."""
    blob_endpoint: str | None = None
    """``https://<account>.blob.core.windows.net``"""
    blob_container: str = "parley"
    """Container for uploads, and for bodies too large for Cosmos DB."""
    prompts_container: str | None = None
    """Container that holds the prompts as ``prompts_dir`` does. Unset: the folder is used."""
    request_timeout_s: PositiveFloat = 5.0
    """How long one request to Azure may take."""
    retry_s: PositiveFloat = 15.0
    """How long a request is tried again while Azure is busy or away."""
    inbox_delay_s: PositiveFloat = 5.0
    """How long a conversation's row in the list of conversations may lag behind for other Store replicas."""


class CacheSettings(_Group):
    backend: Literal["off", "memory", "redis"] = "off"
    """``memory``: in the Store replica, for the embedded store, which has one. ``redis``: shared, at ``REDIS_URL``."""
    authz_ttl_s: PositiveFloat = 60.0
    """How long what was read of users, tenants and identities is used again."""
    messages_ttl_s: PositiveFloat = 300.0
    """How long the messages of a conversation are used again."""
    max_entries: PositiveInt = 10_000
    """Entries kept in memory; the one unused for longest goes first."""
    max_entry_bytes: PositiveInt = 1_048_576
    """A larger entry is not kept."""
    timeout_s: PositiveFloat = 0.25
    """How long Redis may take to answer before the store is asked instead."""


class AnswerCacheSettings(_Group):
    backend: Literal["off", "memory", "redis"] = "off"
    """Answers given again to the very same question. ``memory``: in each ModelGateway replica. ``redis``: shared, at
    ``REDIS_URL``.
    """
    ttl_s: PositiveFloat = 3_600.0
    """How long an answer is given again."""
    max_bytes: PositiveInt = 67_108_864
    """Answers kept in memory, all together; the one unused for longest goes first. In Redis ``maxmemory`` is what bounds them."""
    max_entry_bytes: PositiveInt = 262_144
    """A longer answer is not kept."""
    any_temperature: bool = False
    """Keep also answers that were not asked for at temperature 0, which a model would word differently each time."""


class FileSettings(_Group):
    max_bytes: PositiveInt = 20_971_520
    """Largest upload."""
    max_bytes_per_user: PositiveInt = 1_073_741_824
    """All files of a user together."""
    max_files_per_user: PositiveInt = 1_000
    """Files a user may keep."""
    url: Literal["route", "sas"] = "route"
    """What a file's address is: the download route, or a signed address at the Blob service."""
    sas_ttl_s: Annotated[int, Field(ge=60, le=86_400)] = 900
    """How long a signed address is good."""


class UsageSettings(_Group):
    buffer: Literal["off", "local", "azure"] = "off"
    """``off``: a turn's usage is written as it ends. ``azure``: gathered in memory and written to Cosmos DB in batches; what a
    crash loses is made up for from the turns. ``local``: the same with a file below ``data_dir`` beside it."""
    flush_s: PositiveFloat = 5.0
    """How long usage may stay in the buffer."""


class ChannelSettings(_Group):
    bind_host: str = "127.0.0.1"
    """Address each replica's channel listens on. ``node``: the address of the replica's own node, for clusters."""
    advertise_host: str | None = None
    """Address other replicas reach it at, if not the one it listens on."""
    tick_ms: Annotated[int, Field(ge=0, le=1000)] = 25
    """Shortest time between two frames to one peer; the first piece of a stream never waits for it."""
    high_water_frames: PositiveInt = 1_000
    """Frames waiting for one peer before more are dropped; what follows them goes on from the log."""
    max_frame_bytes: PositiveInt = 4_194_304
    """Largest frame that is sent or accepted."""
    request_timeout_s: PositiveFloat = 5.0
    """How long a request between replicas may take."""


class LimitSettings(_Group):
    body_bytes: PositiveInt = 1_048_576
    """Largest HTTP body."""
    chat_body_bytes: PositiveInt = 16_777_216
    """Largest body of ``POST /api/chat``: the AI SDK sends the whole conversation each time, tool results included."""
    v1_body_bytes: PositiveInt = 4_194_304
    """Largest body of the OpenAI-compatible routes, all of which is kept with its turn."""
    query_chars: PositiveInt = 32_000
    """Longest message of a user."""
    ws_frame_bytes: PositiveInt = 65_536
    """Largest WebSocket frame from a client."""
    ws_messages_per_s: PositiveInt = 20
    """WebSocket messages a client may send per second."""
    ws_connections_per_user: PositiveInt = 5_000
    """Counted per Ingress replica. Many, because in development everybody may be the same user."""
    ws_violations: PositiveInt = 10
    """Broken limits within a minute before the socket is closed."""
    tail_items: PositiveInt = 5_000
    """Events waiting for one slow reader before it is dropped to its cursor."""
    header_bytes: PositiveInt = 32_768
    """Largest head of a request: its address and all of its headers together."""
    header_count: PositiveInt = 100
    """Most headers of a request."""
    ws_auth_timeout_s: PositiveFloat = 5.0
    """How long a WebSocket that came without credentials may take to bring them in its first message."""
    ws_unauthenticated: PositiveInt = 200
    """WebSockets of an Ingress replica that have brought no credentials yet; further ones are refused."""
    ws_unauthenticated_per_address: PositiveInt = 20
    """The same from one address, where it is known (``forwarded_hops``)."""
    ws_recheck_s: PositiveFloat = 30.0
    """How often it is looked up whether the users of open WebSockets still have access."""
    forwarded_hops: Annotated[int, Field(ge=0, le=8)] = 0
    """Proxies of yours in front that each add to ``X-Forwarded-For``. With 0 nothing that header says is believed."""
    user_requests_per_minute: PositiveInt | None = None
    """Requests and WebSocket messages of a user. Unset: any number. A tenant's or user's own limits win, for all six."""
    user_concurrent_turns: PositiveInt | None = None
    """Turns of a user that have not ended."""
    user_tokens_per_minute: PositiveInt | None = None
    """Tokens of a user's turns, both ways, in any sixty seconds; one that runs counts with what the user's turns use."""
    tenant_requests_per_minute: PositiveInt | None = None
    """Requests and WebSocket messages of all users of a tenant."""
    tenant_concurrent_turns: PositiveInt | None = None
    """Turns of all users of a tenant that have not ended."""
    tenant_tokens_per_minute: PositiveInt | None = None
    """Tokens of all turns of a tenant."""
    open_turns: PositiveInt = 2_000
    """Turns of everybody that have not ended; beyond, new ones are refused as overload at once."""
    open_turns_batch: PositiveInt = 1_000
    """The same for input that says ``X-Priority: batch``: it gives way to live input."""
    counted: PositiveInt = 100_000
    """Users and tenants whose use is counted at a time; beyond, whoever has been idle for longest is forgotten."""


class ToolSettings(_Group):
    max_result_bytes: PositiveInt = 65_536
    """A larger result is cut, and the model is told so."""
    max_calls: PositiveInt = 64
    """Calls in flight per replica."""
    refresh_s: PositiveFloat = 60.0
    """How often tool lists are read again."""
    connect_timeout_s: PositiveFloat = 5.0
    """How long opening a tool server's session may take, where its entry says nothing else."""
    retry_min_s: PositiveFloat = 0.5
    """First wait before a tool server that is down is tried again; it doubles up to ``retry_max_s``."""
    retry_max_s: PositiveFloat = 15.0
    """Longest wait before a tool server that is down is tried again."""


class CompanionSettings(_Group):
    provider: Literal["auto", "on", "off"] = "auto"
    """The simulated provider; ``auto`` starts it when no provider is configured."""
    tools: bool = True
    """The example tool servers crm and hr. Production mode never starts companions."""
    host: str = "127.0.0.1"
    """Address they listen on. They have no access control: keep it on loopback."""
    port: Port = 8765
    """Port they listen on."""
    script: Path | None = None
    """A script for the simulated provider."""


class LogSettings(_Group):
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is logged."""
    format: Literal["console", "json"] = "json"
    """One JSON object a line, or lines for people."""
    dir: Path | None = None
    """Folder for one file per stage. Unset: ``logs`` below the data folder on one machine in development; else the
    process's standard error, which Ray keeps in its session folder and clusters collect."""
    file_bytes: PositiveInt = 10_485_760
    """A log file's size before it is rotated; three old ones are kept."""


STORE_DEFAULTS: dict[str, dict[str, Any]] = {
    "azure": {
        "turn": {"durability": "async", "commit_s": 5.0, "lease_s": 15.0, "renew_s": 5.0},
        "usage": {"buffer": "azure"},
    },
}
"""What is other than the defaults of the groups where nothing else is said, by store: each write to Cosmos DB costs money."""


class Settings(BaseSettings):
    """Everything that can be set. Immutable; built by :meth:`load`."""

    model_config = SettingsConfigDict(
        env_prefix="PARLEY_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        use_attribute_docstrings=True,
    )

    mode: Literal["development", "production"] = "development"
    """``development`` brings stand-ins for what is not configured; ``production`` enforces everything."""
    host: str = "127.0.0.1"
    """Address of page and API."""
    port: Port = 8000
    """Port of page and API."""
    replica_host: str = "127.0.0.1"
    """Address the servers listen on that replicas call each other through; ``::`` on a cluster of several nodes."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Where Prometheus finds Ray's metrics on this machine; 0 takes any free port and says which."""
    data_dir: Path = Path("data")
    """Folder that keeps everything said, the example data and the logs."""
    store: Literal["local", "azure", "memory"] = "local"
    """``local``: SQLite and files below ``data_dir``. ``azure``: Cosmos DB and Blob Storage. ``memory``: nothing is kept; for
    tests."""
    mcp_servers: Path = Path("configs/mcpservers.json")
    """Tool servers: where they are, who may use them, which tools are idempotent."""
    models: Path = Path("configs/models.yaml")
    """Model providers and their models."""
    prompts_dir: Path = Path("prompts")
    """Folder of prompts: ``<name>/<version>/prompt.md``."""
    serve_config: Path = Path("serve_config.yaml")
    """Ray's settings of every stage, as ``parley serve`` applies them."""
    shadow: Path | None = None
    """Candidates that a share of live turns is mirrored to, with nobody seeing it: a file such as
    ``configs/shadow.example.yaml``."""
    cors_origins: tuple[str, ...] = ()
    """Other origins whose pages may use the API, exactly as browsers send them."""
    hosts: tuple[str, ...] = ()
    """Names this server answers to. Unset: any; in development on a loopback address only addresses and names without dots,
    so that no page can reach it under a name of its own."""

    auth: AuthSettings = AuthSettings()
    conversation: ConversationSettings = ConversationSettings()
    turn: TurnSettings = TurnSettings()
    store_limits: StoreSettings = StoreSettings()
    azure: AzureSettings = AzureSettings()
    cache: CacheSettings = CacheSettings()
    answer_cache: AnswerCacheSettings = AnswerCacheSettings()
    files: FileSettings = FileSettings()
    usage: UsageSettings = UsageSettings()
    channel: ChannelSettings = ChannelSettings()
    limits: LimitSettings = LimitSettings()
    tool: ToolSettings = ToolSettings()
    companions: CompanionSettings = CompanionSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_store(cls, values: Any) -> Any:
        if isinstance(values, dict) and (defaults := STORE_DEFAULTS.get(values.get("store", ""))):
            return _merged(defaults, {name: _plain(value) for name, value in values.items()})
        return values

    @model_validator(mode="after")
    def _azure_is_whole(self) -> Settings:
        if self.store == "azure":
            for name in ("cosmos_endpoint", "blob_endpoint"):
                if getattr(self.azure, name) is None:
                    raise ValueError(
                        f"PARLEY_AZURE__{name.upper()}: PARLEY_STORE=azure needs it; see `parley store init --help`"
                    )
            if self.cache.backend == "memory":
                raise ValueError(
                    "PARLEY_CACHE__BACKEND: memory is right with one Store replica only, and PARLEY_STORE=azure may have many; "
                    "choose redis or off"
                )
            return self
        for setting, without in (
            ("PARLEY_USAGE__BUFFER", self.usage.buffer != "off"),
            ("PARLEY_FILES__URL", self.files.url == "sas"),
        ):
            if without:
                raise ValueError(f"{setting}: only PARLEY_STORE=azure knows this value")
        return self

    @model_validator(mode="after")
    def _production_is_strict(self) -> Settings:
        if self.mode == "production" and self.auth.mode == "development":
            raise ValueError(
                "PARLEY_AUTH__MODE: production refuses development identities; choose jwt, entra or accounts, or use"
                " PARLEY_MODE=development where only people you trust can reach it"
            )
        for origin in self.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"PARLEY_CORS_ORIGINS: {origin!r} is no origin that can be allowed, because requests carry credentials;"
                    " name each one exactly as browsers send it, such as https://app.example.com"
                )
        if self.turn.renew_s * 2 > self.turn.lease_s:
            raise ValueError(
                "PARLEY_TURN__RENEW_S: must be at most half of PARLEY_TURN__LEASE_S, or leases expire between renewals"
            )
        return self

    @model_validator(mode="after")
    def _auth_is_whole(self) -> Settings:
        auth = self.auth
        needed = {"jwt": ("issuer", "audience", "jwks"), "entra": ("client_id",)}
        for name in needed.get(auth.mode, ()):
            if not getattr(auth, name):
                raise ValueError(f"PARLEY_AUTH__{name.upper()}: PARLEY_AUTH__MODE={auth.mode} needs it")
        if auth.jwks and not _may_fetch(auth.jwks, plain=self.mode == "development"):
            raise ValueError(
                "PARLEY_AUTH__JWKS: whoever can change the keys on their way can be anybody; use https, or a file"
            )
        if not auth.authority.startswith("https://") or auth.authority.endswith("/"):
            raise ValueError("PARLEY_AUTH__AUTHORITY: must be an https address without a slash at its end")
        if auth.jwks_stale_s < auth.jwks_ttl_s:
            raise ValueError("PARLEY_AUTH__JWKS_STALE_S: must be at least PARLEY_AUTH__JWKS_TTL_S")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Only ``load`` looks around. As a source of its own the environment would win over the command line too.
        return (init_settings,)

    @classmethod
    def load(cls, config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
        """Reads file and environment. ``overrides`` (flat names, None means absent) win over both.

        Raises ConfigError with one sentence that names the setting and says what is wrong with it.
        """
        named = config or (Path(env) if (env := os.environ.get("PARLEY_CONFIG")) else None)
        values = _read_yaml(named) if named else {}
        chosen = {k: v for k, v in (overrides or {}).items() if v is not None}
        try:
            settings = cls(**_merged(_merged(values, EnvSettingsSource(cls)()), chosen))
        except ValidationError as error:
            raise ConfigError(_sentence(error)) from error
        except SettingsError as error:
            field = re.search(r'field "(\w+)"', str(error))
            name = f"PARLEY_{field[1].upper()}" if field else "PARLEY_…"
            raise ConfigError(f"Setting {name} cannot be read: as a whole it must be valid JSON.") from error
        _refuse_unknown_variables(cls.model_fields)
        return settings

    def anchored(self) -> Settings:
        """The same with absolute paths, for processes that may run in another folder."""
        paths = {
            name: self.path(value) for name in type(self).model_fields if isinstance(value := getattr(self, name), Path)
        }
        return self.model_copy(update=paths)

    @property
    def log_folder(self) -> Path | None:
        """Where log files go, or None for standard error."""
        if self.log.dir is not None:
            return self.path(self.log.dir)
        one_machine = self.mode == "development" and self.store != "memory" and not self.several_machines
        return self.path(self.data_dir) / "logs" if one_machine else None

    @property
    def several_machines(self) -> bool:
        """Whether replicas may run on machines that share no folder."""
        return self.replica_host == "::"

    def path(self, path: Path) -> Path:
        """An absolute path. Relative ones count from the working folder; what ships with the project (configuration,
        prompts) is taken from there where the working folder has none.
        """
        here = Path.cwd() / path
        shipped = not path.is_absolute() and path.parts[:1] in SHIPPED
        return PROJECT_ROOT / path if shipped and not here.exists() and (PROJECT_ROOT / path).exists() else here


def require_ray_token(settings: Settings) -> None:
    """In production, Ray's own doors (jobs, dashboard, replicas) must ask for a token. Raises ConfigError."""
    if settings.mode != "production":
        return
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        raise ConfigError(
            "Setting RAY_AUTH_MODE: production refuses a Ray that runs anybody's code; set RAY_AUTH_MODE=token for every node."
        )
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        found = bool(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        found = False
    if not found:
        raise ConfigError(
            "Setting RAY_AUTH_TOKEN: RAY_AUTH_MODE=token needs it, or a file that holds it, named by RAY_AUTH_TOKEN_PATH."
        )


def environment_variable(name: str) -> str | None:
    """A variable that an operator's file refers to as ``${NAME}``."""
    return os.environ.get(name)


_OTHER_VARIABLES = frozenset({"PARLEY_CONFIG"} | {n.upper() for n in Secrets.model_fields if n.startswith("parley_")})


def _may_fetch(jwks: str, *, plain: bool) -> bool:
    """Whether keys may come from there: a file, https, or, in development, this very machine."""
    if "://" not in jwks:
        return True
    return jwks.startswith("https://") or (plain and _LOOPBACK_URL.fullmatch(jwks) is not None)


def _refuse_unknown_variables(fields: Mapping[str, object]) -> None:
    """A misspelt variable would otherwise be ignored in silence."""
    known = {f"PARLEY_{name.upper()}" for name in fields} | _OTHER_VARIABLES
    for name in sorted(os.environ):
        if name.startswith("PARLEY_") and name.partition("__")[0] not in known:
            raise ConfigError(f"Setting {name} does not exist; unset it or correct its name.")


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, group by group; what ``above`` says wins."""
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        merged[name] = _merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return merged


def _plain(value: Any) -> Any:
    """A group given as an object, as what was said in it."""
    return value.model_dump(exclude_unset=True) if isinstance(value, _Group) else value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {path} is not valid YAML: {error}.") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"The configuration file {path} must hold a mapping of settings, not a {type(loaded).__name__}."
        )
    return {str(name): value for name, value in loaded.items()}


def _sentence(error: ValidationError) -> str:
    """The first problem, named as it would be set in the environment."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"Setting {message}."
    name = "PARLEY_" + "__".join(str(part) for part in first["loc"]).upper()
    given = "" if first["type"] in {"missing", "extra_forbidden"} else f" (it is {first['input']!r})"
    more = f" There are {error.error_count() - 1} more problems." if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        in_file = ".".join(map(str, first["loc"]))
        return f"Setting {name} ({in_file} in a file) does not exist; remove it or correct its name.{more}"
    return f"Setting {name} cannot be used{given}: {message[0].lower() + message[1:]}.{more}"
