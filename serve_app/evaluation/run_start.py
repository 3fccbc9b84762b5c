"""The beginning of a run: names in the run file become what the graph has by them, and the folder is made and filled.

It can be killed anywhere: a folder whose cases are not all there yet gets the rest when the run is gone on with.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from serve_app.domain.generation import ModelCatalog
from serve_app.domain.ids import new_id
from serve_app.errors import ConfigError
from serve_app.evaluation.choosing import chosen_cases
from serve_app.evaluation.configurations import Configuration
from serve_app.evaluation.dataset import Dataset
from serve_app.evaluation.grading import grader_metas
from serve_app.evaluation.run_file import RunFile, run_file_yaml
from serve_app.evaluation.run_folder import RUN_FILE, RunLock, claim_folder
from serve_app.evaluation.run_meta import ConfigurationMeta, RunMeta
from serve_app.evaluation.run_store import RunStore
from serve_app.evaluation.trial_turns import Asking


class GraphView(Struct, frozen=True, kw_only=True):
    """What of a graph decides on what names stand for."""

    catalog: ModelCatalog
    prompts: Mapping[str, tuple[str, ...]]
    where: str = ""


def resolved(run: RunFile, graph: GraphView) -> tuple[ConfigurationMeta, ...]:
    """The run's configurations with the versions and models there are. Raises ConfigError for one there is not."""
    return tuple(_resolved(one, run, graph) for one in run.all_configurations)


def new_meta(run: RunFile, graph: GraphView, dataset: Dataset, version: str) -> RunMeta:
    """Raises ConfigError as ``resolved`` does."""
    return RunMeta(
        run_id=new_id(),
        name=run.name,
        description=run.description,
        created_at=time.time(),
        configurations=resolved(run, graph),
        baseline=run.baseline_name,
        mode=run.mode,
        tenant=run.tenant,
        role=run.role,
        replies=tuple(reply.call for reply in run.replies),
        repeats=run.repeats,
        seed=run.seed,
        graders=grader_metas(run.graders),
        dataset=str(dataset.path),
        fingerprint=dataset.fingerprint,
        dataset_cases=dataset.count,
        graph=graph.where,
        simulated=graph.catalog.simulated,
        parley_version=version,
    )


def new_run(folder: Path, run: RunFile, meta: RunMeta, lock: RunLock | None = None) -> RunStore:
    """The run's folder, without cases yet. ``lock`` is the folder's, where it is held already. Raises ConfigError where it cannot
    be made."""
    lock = lock or claim_folder(folder)
    try:
        # Before the results' file: where that is, there is a run, and all that going on with it takes.
        beside = folder / f".{RUN_FILE}"
        beside.write_text(run_file_yaml(run), encoding="utf-8")
        beside.replace(folder / RUN_FILE)
    except OSError as error:
        lock.release()
        raise ConfigError(f"The run folder {folder} cannot be written to ({error.strerror}).") from error
    return RunStore.create(folder, meta, lock)


def fill(store: RunStore, run: RunFile, dataset: Dataset) -> None:
    """Puts the run's cases into its folder, those that are not there yet. Raises ConfigError where the data set is another one
    than it began with."""
    meta = store.meta
    if meta.cases:
        return
    if dataset.fingerprint != meta.fingerprint:
        raise ConfigError(
            f"The data set {dataset.path} has changed since this run began; put it back as it was, or begin a new run."
        )
    count = store.add_cases(chosen_cases(dataset, run.sample, run.seed))
    store.save_meta(replace(store.meta, cases=count))


def asking(run: RunFile, meta: RunMeta) -> Asking:
    return Asking(
        run_id=meta.run_id,
        mode=meta.mode,
        tenant=meta.tenant or run.tenant,
        role=meta.role if meta.tenant else run.role,
        timeout_s=run.timeout_s,
        replies=meta.replies if meta.replies is not None else tuple(reply.call for reply in run.replies),
    )


def _resolved(one: Configuration, run: RunFile, graph: GraphView) -> ConfigurationMeta:
    return ConfigurationMeta(
        name=one.name,
        prompt=one.prompt_name or "",
        prompt_version=_version(one, graph) if one.prompt_name else "",
        model=_model(one, graph.catalog) if one.model else "",
        settings=one.settings.settings,
        tools=one.tools or run.tools,
        only_tools=one.only,
        note=one.note,
    )


def _version(one: Configuration, graph: GraphView) -> str:
    name, version = one.prompt_name or "", one.prompt_version
    there = graph.prompts.get(name)
    if not there:
        raise ConfigError(
            f"The configuration {one.name} names the prompt '{name}', which there is not; "
            f"there are: {', '.join(sorted(graph.prompts)) or 'none'}."
        )
    if version is not None and version not in there:
        raise ConfigError(
            f"The configuration {one.name} names version '{version}' of the prompt {name}, which there is not; "
            f"there are: {', '.join(there)}."
        )
    return version or there[0]


def _model(one: Configuration, catalog: ModelCatalog) -> str:
    model = one.model or ""
    names = [name for info in catalog.models for name in (info.model_id, *info.aliases)]
    if model not in names and not catalog.any_model:
        raise ConfigError(
            f"The configuration {one.name} names the model '{model}', which there is not; "
            f"there are: {', '.join(names) or 'none'}."
        )
    return model
