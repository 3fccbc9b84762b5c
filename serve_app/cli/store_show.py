"""What ``parley store show`` says: the store that the settings choose, and how it is used."""

from __future__ import annotations

from serve_app.credentials import Secrets
from serve_app.settings import Settings


def rows(settings: Settings, secrets: Secrets) -> list[tuple[str, str]]:
    """Names and what is said of them. Raises ParleyError for a database that cannot be read."""
    places = {"local": _local, "azure": _azure, "memory": _memory}
    turn, cache = settings.turn, settings.cache
    return [
        *places[settings.store](settings, secrets),
        (
            "durability",
            turn.durability if turn.durability != "async" else f"async, text stored every {turn.commit_s:g} s",
        ),
        (
            "cache",
            cache.backend if cache.backend != "redis" else f"redis{'' if secrets.redis_url else ', without REDIS_URL'}",
        ),
        ("usage", {"off": "written at once"}.get(settings.usage.buffer, f"buffered ({settings.usage.buffer})")),
    ]


def _local(settings: Settings, _: Secrets) -> list[tuple[str, str]]:
    from serve_app.storage.sqlite.transfer import count_beside

    folder = settings.path(settings.data_dir)
    counts = count_beside(folder)
    found = [("store", f"SQLite in {folder}")]
    if counts is None:
        return [*found, ("holds", "nothing yet; the database is made at the first start")]
    holds = ", ".join(f"{getattr(counts, kind):,} {kind}" for kind in counts.__struct_fields__)
    return [*found, ("holds", holds)]


def _azure(settings: Settings, secrets: Secrets) -> list[tuple[str, str]]:
    azure = settings.azure

    def who(key: object) -> str:
        return "by key" if key is not None else "by Entra ID"

    bought = f"up to {azure.cosmos_max_rus} RU/s" if azure.cosmos_max_rus else "serverless"
    return [
        (
            "store",
            f"Cosmos DB {azure.cosmos_database} at {azure.cosmos_endpoint}, {who(secrets.azure_cosmos_key)}, {bought}",
        ),
        ("files", f"Blob container {azure.blob_container} at {azure.blob_endpoint}, {who(secrets.azure_storage_key)}"),
    ]


def _memory(_: Settings, __: Secrets) -> list[tuple[str, str]]:
    return [("store", "in memory: nothing is kept")]
