from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from fastapi import FastAPI

from serve_app.ingress.app import create_app
from serve_app.settings import LimitSettings
from tests.security.people import ANNA, BERT, NAMESAKE, TableAuthenticator, token_settings
from tests.unit.ingress.asgi import Client
from tests.unit.ingress.stages import Stages, make_stages


@dataclass
class Door:
    """A server that wants tokens, and everybody who has one."""

    app: FastAPI
    people: TableAuthenticator
    stages: Stages

    def client(self, token: str | None) -> Client:
        return Client(self.app, {} if token is None else {"authorization": f"Bearer {token}"})


def open_door(limits: LimitSettings | None = None, **settings: object) -> Door:
    stages = make_stages()
    people = TableAuthenticator()
    for token, principal in (("t-anna", ANNA), ("t-bert", BERT), ("t-namesake", NAMESAKE)):
        people.add(token, principal)
    services = replace(stages.services(token_settings(limits, **settings)), authenticator=people)
    return Door(create_app(services), people, stages)


@pytest.fixture
def door() -> Door:
    return open_door()


@pytest.fixture
def doors() -> Callable[..., Door]:
    return open_door
