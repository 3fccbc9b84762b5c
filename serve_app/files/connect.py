"""The file store that the settings describe."""

from __future__ import annotations

from serve_app.credentials import Secrets
from serve_app.files.filesystem import FilesystemFiles
from serve_app.files.nowhere import NoFiles
from serve_app.files.port import FileStore
from serve_app.settings import Settings

FOLDER = "files"


def open_files(settings: Settings, secrets: Secrets) -> FileStore:
    """Blob Storage with ``store: azure``, else the folder ``files`` below the data folder, where there is one machine only,
    or else nothing that keeps any. Asks nobody yet: ``check`` does.

    Any number of replicas may open it; whoever opens it closes it. Raises ConfigError for settings that cannot work.
    """
    if settings.store == "azure":
        # Imported where it is needed: the SDK takes a while, and files on disk never use it.
        from serve_app.blob.container import BlobContainer
        from serve_app.files.blob import BlobFiles

        azure = settings.azure
        container = BlobContainer.open(azure, secrets.azure_storage_key, azure.blob_container)
        return BlobFiles(container, settings.files)
    if settings.store == "local" and settings.several_machines:
        return NoFiles()
    return FilesystemFiles(settings.path(settings.data_dir) / FOLDER, settings.files)
