"""``/openapi.json`` and ``/docs``: Swagger UI from files of this machine, since no page here loads from an outside host.

The files are those of the package ``fastapi-swagger``, which is only looked up, never imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.exceptions import HTTPException

from serve_app.wire.chat_request import ChatRequest
from serve_app.wire.service import ProblemView

_ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
_START = """\
SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});
"""
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Parley API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>The API is described in <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/assets/start.js"></script>
</body>
</html>
"""
_BARE_PAGE = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Parley API</title><link rel="icon" href="data:,"></head>
<body><p>Swagger UI is not installed. The API is described in <a href="openapi.json">openapi.json</a>.</p></body>
</html>
"""

DESCRIPTION = (
    "Conversations with tool-using language models. Chat by WebSocket at `/ws/chat`, or by `POST /api/chat` as the AI SDK "
    "does. In development the headers `X-Dev-User`, `X-Dev-Tenant` and `X-Dev-Roles` choose who one is. Failures are "
    "`application/problem+json`.\n\n"
    "Programs that speak OpenAI's API find it below `/v1`, failures included: the official SDKs work with that as `base_url`.\n\n"
    "A turn runs on the model its query names (`model_id`), else on the one its prompt names, else on the configured default. "
    "`data-model` in a stream is the model of the query or the default: it does not know the prompt's. "
    "`GET /api/turns/{turn_id}` says for each step which model ran."
)


def swagger_folder() -> Path | None:
    """Where Swagger UI's files are, if they are installed."""
    spec = importlib.util.find_spec("fastapi_swagger")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "resources"
    return folder if all((folder / name).is_file() for name in _ASSETS) else None


def docs_routes() -> APIRouter:
    """The page and its files."""
    router = APIRouter(include_in_schema=False)
    folder = swagger_folder()

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(_PAGE if folder is not None else _BARE_PAGE)

    @router.get("/docs/assets/{name}")
    async def asset(name: str) -> Response:
        if name == "start.js":
            return Response(_START, media_type="text/javascript")
        if folder is None or name not in _ASSETS:
            raise HTTPException(404)
        return FileResponse(folder / name, media_type=_ASSETS[name], headers={"cache-control": "public, max-age=86400"})

    return router


def describe_schemas(app: FastAPI) -> None:
    """Adds the schemas that routes refer to by name only to the document FastAPI makes."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for model in (ProblemView, ChatRequest):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            for name, part in {**schema.pop("$defs", {}), model.__name__: schema}.items():
                schemas.setdefault(name, part)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
