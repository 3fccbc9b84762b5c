"""The replica of a local model. Importing this needs Ray Serve LLM with vLLM: ``local_model`` does when asked for one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from pydantic import ValidationError
from ray.serve.llm import LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest


class LocalModelServer(LLMServer):
    """Ray Serve LLM's server, asked in bytes: the gateway needs nothing of vLLM to do so."""

    async def complete(self, body: bytes) -> AsyncIterator[bytes]:
        """Answers a body of ``POST /v1/chat/completions``: first the status in digits, then the body as it is made."""
        try:
            request = ChatCompletionRequest.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(step) for step in first["loc"])
            yield b"400"
            yield json.dumps({"error": {"message": f"{place}: {first['msg']}"}}).encode()
            return
        begun = False
        async with aclosing(await self.chat(request)) as answer:  # whoever stops listening stops the engine
            async for batch in answer:
                items: list[Any] = batch if isinstance(batch, list) else [batch]
                failed = next((item for item in items if getattr(item, "error", None) is not None), None)
                if not begun:
                    yield b"200" if failed is None or failed is not items[0] else str(_status(failed)).encode()
                text = [item for item in items if isinstance(item, str)]
                if failed is not None:
                    data = failed.model_dump_json()
                    text.append(data if not begun and failed is items[0] else f"data: {data}\n\n")
                begun = True
                yield "".join(text or [item.model_dump_json() for item in items]).encode()
                if failed is not None:
                    return

    async def models(self) -> list[str]:
        """The model's name, once its engine says that it is well."""
        await self.check_health()
        return [self._llm_config.model_id]


def _status(error: Any) -> int:
    code = getattr(getattr(error, "error", None), "code", None)
    return code if isinstance(code, int) and 400 <= code <= 599 else 500
