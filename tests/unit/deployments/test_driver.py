"""The driver's words: what a person is told of a stage that did not start, and what its parent hears."""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec
import pytest

from deployments.driver import Driver, DriverOptions, _reason, _replaced
from serve_app.settings import PROJECT_ROOT

FAILED_REPLICA = """The deployment failed to start 1 times in a row. This may be due to a problem with its constructor or \
initial health check failing. See controller logs for details. Retrying after 1 seconds. Error:
ray::ServeReplica:parley:Store.initialize_and_get_metadata() (pid=4711, ip=127.0.0.1, actor_id=0123, repr=<Store>)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/usr/lib/python3.11/concurrent/futures/_base.py", line 456, in result
    return self.__get_result()
  File "/srv/parley/serve_app/storage/sqlite.py", line 81, in open
    raise ConfigError(f"The data folder {folder} is used by another program; end it or set PARLEY_DATA_DIR.")
serve_app.errors.ConfigError: The data folder /srv/data is used by another program; end it or set PARLEY_DATA_DIR.

The above exception was the direct cause of the following exception:

ray::ServeReplica:parley:Store.initialize_and_get_metadata() (pid=4711, ip=127.0.0.1, actor_id=0123, repr=<Store>)
  File "/usr/lib/ray/serve/_private/replica.py", line 1302, in initialize
    raise RuntimeError(traceback.format_exc()) from None
RuntimeError: Traceback (most recent call last):
  File "/usr/lib/ray/serve/_private/replica.py", line 1275, in initialize
    await self._user_callable_initialized
serve_app.errors.ConfigError: The data folder /srv/data is used by another program; end it or set PARLEY_DATA_DIR.
"""

_NO_DATA = "No data folder /srv/data is used by another program; end it or set PARLEY_DATA_DIR."


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            FAILED_REPLICA,
            "The data folder /srv/data is used by another program; end it or set PARLEY_DATA_DIR.",
        ),
        (FAILED_REPLICA.replace("ConfigError", "DeadlineExceeded").replace("The data", "No data"), _NO_DATA),
        ("ValueError: no such thing: x", "no such thing: x"),
        ("Replica died.\n  File x, line 1\nray.exceptions.RayTaskError(OSError): odd\nlast words\n", "last words"),
        ("Deploying.\nThe replica was killed.", "The replica was killed."),
        ("Note: this is no exception", "Note: this is no exception"),
        ("  \n", "no reason was given"),
        ("", "no reason was given"),
    ],
)
def test_a_person_is_told_the_sentence_and_not_the_traceback(message: str, reason: str) -> None:
    assert _reason(message) == reason


def options(tell_fd: int, **changes: Any) -> DriverOptions:
    values: dict[str, Any] = {
        "run_dir": "/tmp/parley-unused",
        "serve_config": str(PROJECT_ROOT / "serve_config.yaml"),
        "config": None,
        "overrides": {},
        "host": "127.0.0.1",
        "port": 8000,
        "metrics_port": 0,
        "start_timeout_s": 1.0,
    }
    return DriverOptions(tell_fd=tell_fd, **(values | changes))


def heard(read: int) -> list[dict[str, Any]]:
    with os.fdopen(read) as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"overrides": {"store": "redis"}}, "PARLEY_STORE"),
        ({"serve_config": "/nowhere/serve_config.yaml"}, "/nowhere/serve_config.yaml cannot be read"),
        ({"config": "/nowhere/settings.yaml"}, "/nowhere/settings.yaml cannot be read"),
    ],
)
def test_a_setting_that_cannot_work_is_told_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], told: str
) -> None:
    import ray

    monkeypatch.setattr("deployments.driver._end_with_parent", lambda: None)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    monkeypatch.setenv("RAY_ADDRESS", "somebody-elses:6379")
    read, write = os.pipe()
    driver = Driver(options(write, **changes))
    assert driver.run() == 2
    del driver
    first, *_, last = heard(read)
    assert first == {"phase": "importing Ray"}
    assert told in last["failed"]
    assert "RAY_ADDRESS" not in os.environ


def test_what_the_parent_passes_is_what_the_driver_reads() -> None:
    sent = options(7, overrides={"port": "8400"})
    assert msgspec.json.decode(json.dumps(msgspec.to_builtins(sent)), type=DriverOptions) == sent


class Status:
    """Serve's answer about one application, as far as the driver reads it."""

    def __init__(self, application: str, message: str = "", **stages: tuple[str, str]) -> None:
        from ray.serve.schema import ApplicationStatus

        self.app_status = type("App", (), {"status": ApplicationStatus(application), "message": message})
        self.deployment_statuses = [
            type("Stage", (), {"name": name, "status": type("S", (), {"value": state}), "message": text})
            for name, (state, text) in stages.items()
        ]


class Client:
    """Gives its statuses in order, the last one for ever."""

    def __init__(self, *statuses: Status) -> None:
        self._statuses = list(statuses)

    def get_serve_status(self, name: str) -> Status:
        assert name == "parley"
        return self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]


def watched(
    monkeypatch: pytest.MonkeyPatch, *statuses: Status, **changes: Any
) -> tuple[str | None, list[dict[str, Any]]]:
    """What deploying comes to when Serve answers so, and what was told meanwhile."""
    from deployments import driver as module
    from deployments.options import load_serve_config

    monkeypatch.setattr("ray.serve.run_many", lambda *_, **__: None)
    monkeypatch.setattr(module, "POLL_S", 0.001)
    read, write = os.pipe()
    driver = Driver(options(write, **changes))
    config = load_serve_config(PROJECT_ROOT / "serve_config.yaml")
    failed = driver._run(Client(*statuses), object(), config)
    del driver
    return failed, heard(read)


@pytest.mark.parametrize(
    ("ages_s", "over"),
    [
        ([-60.0, -60.0], False),  # none is new
        ([1.0, -60.0], False),
        ([1.0, 2.0], True),
        ([1.0, 2.0, -60.0], True),  # an old one that drains is not waited for
    ],
)
def test_a_stage_is_replaced_once_its_new_replicas_run(ages_s: list[float], over: bool) -> None:
    replicas = [{"state": "RUNNING", "start_time_s": 1_000 + age_s} for age_s in ages_s]
    replicas.append({"state": "STARTING", "start_time_s": 1_003})
    stage = {"replicas": replicas, "target_num_replicas": 2}
    details = {"applications": {"parley": {"deployments": {"Turns": stage}}}}
    client = type("Client", (), {"get_serve_details": lambda _: details})()
    assert _replaced(client, "parley", "Turns", since=1_000) is over


def test_stages_are_told_as_they_come_up(monkeypatch: pytest.MonkeyPatch) -> None:
    failed, lines = watched(
        monkeypatch,
        Status("DEPLOYING", Store=("UPDATING", ""), Turns=("UPDATING", "")),
        Status("DEPLOYING", Store=("UPDATING", ""), Turns=("UPDATING", "")),
        Status("DEPLOYING", Store=("HEALTHY", ""), Turns=("UPDATING", "")),
        Status("RUNNING", Store=("HEALTHY", ""), Turns=("HEALTHY", "")),
    )
    assert failed is None
    assert lines == [
        {"stages": {"Store": "UPDATING", "Turns": "UPDATING"}},
        {"stages": {"Store": "HEALTHY", "Turns": "UPDATING"}},
        {"stages": {"Store": "HEALTHY", "Turns": "HEALTHY"}},
    ]


@pytest.mark.parametrize("state", ["UPDATING", "DEPLOY_FAILED", "UNHEALTHY"])
def test_a_stage_that_cannot_start_ends_the_wait_with_its_reason(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    failed, _ = watched(monkeypatch, Status("DEPLOYING", Turns=("UPDATING", ""), Store=(state, FAILED_REPLICA)))
    assert failed == (
        "The stage Store did not start: "
        "The data folder /srv/data is used by another program; end it or set PARLEY_DATA_DIR."
    )


def test_a_graph_that_cannot_be_deployed_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    failed, _ = watched(monkeypatch, Status("DEPLOY_FAILED", "RuntimeError: no route"))
    assert failed == "no route"


def test_a_graph_that_is_not_ready_in_time_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    failed, _ = watched(
        monkeypatch,
        Status("DEPLOYING", Turns=("UPDATING", ""), Store=("HEALTHY", ""), Ingress=("UPDATING", "")),
        start_timeout_s=0.05,
    )
    assert failed == "The graph was not ready after 0.05 s; still starting: Ingress, Turns."


def test_a_graph_that_cannot_be_drained_is_stopped_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(*_: object) -> None:
        raise RuntimeError("no such deployment")

    monkeypatch.setattr("ray.serve.get_deployment_handle", gone)
    read, write = os.pipe()
    driver = Driver(options(write))
    driver._drain("parley")
    del driver
    assert heard(read) == []
    assert "draining failed: no such deployment" in capsys.readouterr().err
