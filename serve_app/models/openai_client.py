"""The openai SDK's client for one provider."""

from __future__ import annotations

import httpx2
from openai import AsyncAzureOpenAI, AsyncOpenAI

from serve_app.models.config import AzureProviderConfig, LocalProviderConfig, OpenAIProviderConfig
from serve_app.models.http_client import make_http_client, request_timeout, without_credential

_NO_KEY = "none"


def make_client(
    config: OpenAIProviderConfig | AzureProviderConfig | LocalProviderConfig,
    base_url: str,
    api_key: str | None,
    http_client: httpx2.AsyncClient | None = None,
) -> AsyncOpenAI | AsyncAzureOpenAI:
    """The client of one provider, without retries of its own. Close it after use; ``api_key`` None sends no credential.

    ``http_client`` is one that goes elsewhere than to ``base_url``.
    """
    timeout = request_timeout(config)
    if http_client is None:
        hooks = [] if api_key else [without_credential("authorization", _NO_KEY)]
        http_client = make_http_client(config, base_url, hooks)
    if isinstance(config, AzureProviderConfig):
        return AsyncAzureOpenAI(
            azure_endpoint=base_url,
            api_version=config.api_version,
            api_key=api_key,
            max_retries=0,
            timeout=timeout,
            http_client=http_client,
        )
    return AsyncOpenAI(
        base_url=base_url,
        api_key=api_key or _NO_KEY,  # the SDK insists on one; without a key the header is taken off again
        max_retries=0,
        timeout=timeout,
        http_client=http_client,
    )
