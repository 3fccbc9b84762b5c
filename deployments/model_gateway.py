"""The model gateway stage."""

from __future__ import annotations

from ray import serve

from deployments.autoscaling import USEFUL_STREAMS, useful_replicas
from deployments.handles import Handle, text_sink
from deployments.local_model import PEER, RemoteLocalModel
from deployments.pickled import pack, unpack
from deployments.remote_store import remote_beside
from deployments.shell import Shell
from deployments.stage_report import Figures
from serve_app.access.port import Directory
from serve_app.channel.port import Address
from serve_app.credentials import Secrets
from serve_app.domain.generation import ModelCatalog, ModelRequest
from serve_app.embedded import provider_url
from serve_app.models.connect import connect, connect_quota
from serve_app.rates.port import Rates


@serve.deployment(name="ModelGateway")
class ModelGatewayDeployment(Shell):
    async def start(self, *, store: Handle, **local: Handle) -> None:
        """``local`` are the stages of this cluster's own models, each by its provider's name behind ``PEER``."""
        secrets = Secrets.from_environment()
        url = provider_url(self.settings, secrets)
        self._channel = await self.open_channel()
        directory: Directory = remote_beside(store, "directory", Directory, self._channel)
        rates: Rates = remote_beside(store, "provider_quota", Rates, self._channel)
        self._quota = connect_quota(self.settings, secrets, self.metrics, rates)
        models = {name.removeprefix(PEER): RemoteLocalModel(handle) for name, handle in local.items()}
        self._gateway = await connect(self.settings, secrets, self.metrics, url, directory, self._quota, models)

    async def generate(self, packed: bytes, to: Address) -> bytes:
        """Runs one generation; the text goes to ``to`` on the channel. Request and result are packed: Serve's own pickling of
        a history costs more than all else about a call.
        """
        with self.load.running():
            request: ModelRequest = unpack(packed)
            return pack(await self._gateway.generate(request, text_sink(self._channel, to)))

    async def catalog(self) -> ModelCatalog:
        return await self._gateway.catalog()

    def figures(self) -> Figures:
        return Figures(queued=0 if self._quota is None else self._quota.waiting)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """As every stage's, and how many streams the quotas feed."""
        told = await super().record_autoscaling_stats()
        streams = None if self._quota is None else self._quota.useful_streams()
        if streams is None:
            return told
        scaling = serve.get_replica_context()._deployment_config.autoscaling_config
        if scaling is not None:
            useful = useful_replicas(streams, scaling.get_target_ongoing_requests())
            self.metrics.gauge("parley_model_replicas_useful", useful or 0)
        return told | {USEFUL_STREAMS: streams}

    async def __del__(self) -> None:
        await self._channel.stop()
        await self._gateway.aclose()
        if self._quota is not None:
            await self._quota.aclose()
