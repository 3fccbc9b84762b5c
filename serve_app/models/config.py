"""What the operator's models file (``configs/models.yaml``) may say, with all its references resolved."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from serve_app.models.wire import MaxTokensField


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be an address that starts with http:// or https://")
    if parts.username or parts.password:
        raise ValueError("must not hold a user name or password; name the key's variable with api_key_env")
    return value.rstrip("/")


def _origin(url: str) -> str:
    """Whom a credential in a request to this address is told: scheme, host and port."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if parts.port is None else f":{parts.port}")


def _empty_is_none(value: Any) -> Any:
    return value or None


def _drop_empty(value: Any) -> Any:
    """A model may be written as its name alone; a reference that is unset falls out, and so does a name's second mention."""
    if not isinstance(value, list):
        return value
    named = dict.fromkeys(item for item in value if isinstance(item, str) and item)
    return [{"id": name} for name in named] + [item for item in value if not isinstance(item, str)]


HttpUrl = Annotated[str, AfterValidator(_http_url)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
ModelId = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\s\x00-\x1f\x7f]+$")]
OptionalModelId = Annotated[ModelId | None, BeforeValidator(_empty_is_none)]


Capability = Literal["tools", "vision", "reasoning", "json"]


class Part(BaseModel):
    """A mapping of the file: unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PriceConfig(Part):
    """US dollars per million tokens. ``cached_input``: input that the provider had cached; the price of input without it."""

    input: NonNegativeFloat
    output: NonNegativeFloat
    cached_input: NonNegativeFloat | None = None


class RateConfig(Part):
    """What a provider lets an account do in a minute."""

    rpm: PositiveInt | None = None
    tpm: PositiveInt | None = None


class ModelConfig(Part):
    """A model clients may ask for. ``upstream``: its name at the provider (on Azure the deployment), where that differs."""

    id: ModelId
    upstream: ModelId | None = None
    aliases: tuple[ModelId, ...] = ()
    """Further names for it."""
    context_tokens: PositiveInt | None = None
    max_output_tokens: PositiveInt | None = None
    capabilities: tuple[Capability, ...] = ("tools",)
    price: PriceConfig | None = None
    quota: RateConfig | None = None
    """The provider's limit for this model."""
    fallback: tuple[ModelId, ...] = ()
    """The models asked instead, in order, where this one cannot answer."""


class Provider(Part):
    """What all kinds of providers have."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")]
    enabled_by: tuple[EnvName, ...] = ()
    """Left out unless one of these variables is set. Without it: unless all that it refers to are set."""
    api_key_env: EnvName | None = None
    """The variable that holds the key."""
    models: Literal["*"] | Annotated[tuple[ModelConfig, ...], BeforeValidator(_drop_empty), Field(min_length=1)] = "*"
    """The models it serves; ``"*"`` passes on any name untouched."""
    chat_default: OptionalModelId = None
    utility: OptionalModelId = None
    max_retries: Annotated[int, Field(ge=0, le=5)] = 2
    """Further attempts before the first piece of text."""
    quota: RateConfig | None = None
    """The provider's limit for all of its models together."""
    hedge_after_s: PositiveFloat | None = None
    """A second call is made where the first has not begun to answer after so long; who begins first is heard."""
    max_connections: PositiveInt = 10_000
    connect_timeout_s: PositiveFloat = 3.0
    """Short, so that a provider that has gone is noticed within five seconds."""
    stall_timeout_s: PositiveFloat = 60.0
    """Longest silence between two reads."""
    read_every_ms: Annotated[int, Field(ge=0, le=1000)] = 25
    """Time between two reads of an answer that has begun, twice as long where many run; 0 reads each piece as it comes, for
    several times the work."""


class _ChatCompletions(Provider):
    """What all that speak OpenAI's chat completions have."""

    stream_usage: bool = True
    """Ask for token counts in the stream; false for servers that refuse ``stream_options``."""
    max_tokens_field: MaxTokensField = "max_completion_tokens"


class OpenAIProviderConfig(_ChatCompletions):
    """OpenAI itself, or any server that speaks its chat completions."""

    kind: Literal["openai"]
    base_url: HttpUrl

    @property
    def origin(self) -> str:
        return _origin(self.base_url)


class AzureProviderConfig(_ChatCompletions):
    """Azure OpenAI. Its models are deployments."""

    kind: Literal["azure"]
    endpoint: HttpUrl
    api_version: Annotated[str, StringConstraints(min_length=1)]
    api_key_env: EnvName

    @property
    def origin(self) -> str:
        return _origin(self.endpoint)


class AnthropicProviderConfig(Provider):
    """Anthropic's Messages API."""

    kind: Literal["anthropic"]
    base_url: HttpUrl = "https://api.anthropic.com"
    default_max_output_tokens: PositiveInt = 8192
    """Anthropic wants a bound with each call; this one where neither request nor model has one."""
    prompt_cache: bool = True
    """Let it keep the beginning of a prompt, which the next step of a conversation repeats."""
    thinking: Literal["adaptive", "budget", "off"] = "adaptive"
    """How a model is told to think where a prompt says ``reasoning_effort``; ``budget`` for models before Claude 4.6."""

    @property
    def origin(self) -> str:
        return _origin(self.base_url)


class GoogleProviderConfig(Provider):
    """Google's Gemini API."""

    kind: Literal["google"]
    base_url: HttpUrl = "https://generativelanguage.googleapis.com"
    api_version: Annotated[str, StringConstraints(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$")] = "v1beta"

    @property
    def origin(self) -> str:
        return _origin(self.base_url)


class LocalProviderConfig(_ChatCompletions):
    """A model that runs on this cluster, by Ray Serve LLM (vLLM): a stage of the graph for each such provider."""

    kind: Literal["local"]
    source: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    """Where the weights are: a Hugging Face id, a folder that every node has, or a bucket's address."""
    models: Annotated[tuple[ModelConfig, ...], BeforeValidator(_drop_empty), Field(min_length=1, max_length=1)]
    accelerator: str | None = None
    """Ray's name of the accelerator it needs (``L4``, ``A100``); None is any GPU."""
    engine_kwargs: dict[str, Any] = {}
    """For vLLM's engine as it is: ``max_model_len``, ``tensor_parallel_size``, ``quantization`` and the like."""
    runtime_env: dict[str, Any] = {}
    """Ray's for its replicas: ``env_vars`` such as HF_TOKEN."""
    min_replicas: PositiveInt = 1
    max_replicas: PositiveInt = 1
    max_ongoing_requests: PositiveInt = 64
    """Streams of a replica; the engine batches them. Beyond, calls wait in the gateway."""
    max_queued_requests: PositiveInt = 200

    @model_validator(mode="after")
    def _consistent(self) -> LocalProviderConfig:
        if self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must not be less than min_replicas")
        if self.api_key_env is not None:
            raise ValueError("a local model takes no key; remove api_key_env")
        return self

    @property
    def base_url(self) -> str:
        """No address: requests go by handle."""
        return f"http://{self.name}.local.invalid/v1"

    @property
    def origin(self) -> str:
        return _origin(self.base_url)


ProviderConfig = Annotated[
    OpenAIProviderConfig | AzureProviderConfig | AnthropicProviderConfig | GoogleProviderConfig | LocalProviderConfig,
    Field(discriminator="kind"),
]


class SimulatedConfig(Part):
    """The model of the simulated provider, used when no other is left."""

    model: ModelId
    context_tokens: PositiveInt | None = None


class ModelsConfig(Part):
    """The file with its references resolved and without the providers that are not configured.

    ``chat_default`` and ``utility`` at the top win over the providers' own; of those, the first provider's that has one
    counts. ``skipped`` says why a provider was left out.
    """

    chat_default: OptionalModelId = None
    utility: OptionalModelId = None
    default_context_tokens: PositiveInt = 128_000
    """For models that do not say their own."""
    providers: tuple[ProviderConfig, ...] = ()
    simulated: SimulatedConfig | None = None
    is_simulated: bool = False
    skipped: dict[str, str] = {}

    @property
    def default_model_id(self) -> str | None:
        return self.chat_default or next((p.chat_default for p in self.providers if p.chat_default), None)

    @property
    def utility_model_id(self) -> str | None:
        return self.utility or next((p.utility for p in self.providers if p.utility), None)
