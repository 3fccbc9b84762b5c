from __future__ import annotations

import pytest
from fastapi import FastAPI

from serve_app.ingress.app import create_app
from tests.unit.ingress.asgi import Client
from tests.unit.ingress.stages import Stages, make_stages


@pytest.fixture
def stages() -> Stages:
    return make_stages()


@pytest.fixture
def app(stages: Stages) -> FastAPI:
    return create_app(stages.services())


@pytest.fixture
def client(app: FastAPI) -> Client:
    return Client(app, {"x-dev-user": "ana", "x-dev-roles": "sales"})


@pytest.fixture
def stranger(app: FastAPI) -> Client:
    return Client(app, {"x-dev-user": "bob", "x-dev-roles": "sales"})
