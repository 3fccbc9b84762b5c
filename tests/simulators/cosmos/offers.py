"""What databases and containers are bought at: manual and autoscale throughput, as V2 offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.simulators.cosmos.containers import Container, Database, Names, rid_text
from tests.simulators.cosmos.refusals import bad_request, not_modelled


class Offers:
    """The offers of an account, by id."""

    def __init__(self, names: Names, *, serverless: bool) -> None:
        self._names = names
        self._serverless = serverless
        self.by_id: dict[str, dict[str, Any]] = {}

    def make(self, resource: Database | Container, throughput: str | None, autoscale: Callable[[], Any] | None) -> None:
        """Record the offer that the headers of a create ask for; a container alone gets 400 RU/s where they ask nothing."""
        if throughput is None and autoscale is None:
            shared = isinstance(resource, Container) and self.of(resource.database) is not None
            if self._serverless or isinstance(resource, Database) or shared:
                return
            throughput = "400"
        if self._serverless:
            raise bad_request(
                "Setting offer throughput or autopilot on container is not supported for serverless accounts."
            )
        if autoscale is not None:
            if throughput is not None:
                raise bad_request("An offer is either manual or autoscale, not both.")
            content = {"offerThroughput": 0, "offerAutopilotSettings": autoscale()}
        else:
            content = {"offerThroughput": int(throughput or 0)}
        self._write(rid_text(self._names.rid()), resource.link, rid_text(resource.rid), check_offer(content))

    def of(self, resource: Database | Container) -> dict[str, Any] | None:
        return next((offer for offer in self.by_id.values() if offer["resource"] == resource.link), None)

    def drop(self, resource: Database | Container) -> None:
        offer = self.of(resource)
        if offer is not None:
            del self.by_id[offer["id"]]

    def replace(self, offer_id: str, given: dict[str, Any]) -> dict[str, Any]:
        """Raises a 400 for a change of kind or a figure that cannot be bought."""
        known = self.by_id[offer_id]
        content = given.get("content")
        if not isinstance(content, dict) or given.get("resource") != known["resource"]:
            raise bad_request("The offer to replace has no content, or names another resource.")
        if bool(content.get("offerAutopilotSettings")) != bool(known["content"].get("offerAutopilotSettings")):
            raise not_modelled("changing an offer between manual and autoscale")
        return self._write(offer_id, known["resource"], known["offerResourceId"], check_offer(content))

    def _write(self, offer_id: str, resource: str, resource_rid: str, content: dict[str, Any]) -> dict[str, Any]:
        offer = {
            "resource": resource,
            "offerType": "Invalid",
            "offerResourceId": resource_rid,
            "offerVersion": "V2",
            "content": content,
            "id": offer_id,
            "_rid": offer_id,
            "_self": f"offers/{offer_id}/",
            "_etag": self._names.etag(),
            "_ts": self._names.ts(),
        }
        self.by_id[offer_id] = offer
        return offer


def check_offer(content: dict[str, Any]) -> dict[str, Any]:
    settings = content.get("offerAutopilotSettings")
    if settings:
        most = settings.get("maxThroughput")
        if not isinstance(most, int) or not 1000 <= most <= 1_000_000 or most % 1000:
            raise bad_request(
                "Autoscale's maximum throughput is between 1000 and 1000000 inclusive in increments of 1000."
            )
        kept = {"maxThroughput": most}
        if "autoUpgradePolicy" in settings:
            kept["autoUpgradePolicy"] = settings["autoUpgradePolicy"]
        return {"offerThroughput": most // 10, "offerAutopilotSettings": kept}
    bought = content.get("offerThroughput")
    if not isinstance(bought, int) or not 400 <= bought <= 1_000_000 or bought % 100:
        raise bad_request(
            "The offer should have valid throughput values between 400 and 1000000 inclusive in increments of 100."
        )
    return {"offerThroughput": bought}
