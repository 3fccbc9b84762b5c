"""What a verification starts can run on one machine, with the store that is there."""

from __future__ import annotations

import yaml

from serve_app.capacity.scaled_config import scaled_config


def test_a_plan_for_cosmos_is_verified_with_the_one_replica_that_the_embedded_store_allows() -> None:
    scaling = {"min_replicas": 2, "max_replicas": 4}
    stages = [
        {"name": name, "max_ongoing_requests": 100, "autoscaling_config": dict(scaling)} for name in ("Turns", "Store")
    ]
    text, sizes = scaled_config(yaml.safe_dump({"applications": [{"deployments": stages}]}), "x", 64)
    assert {stage: size.replicas for stage, size in sizes.items()} == {"Turns": 4, "Store": 1}
    written = yaml.safe_load(text)["applications"][0]["deployments"]
    assert [deployment["num_replicas"] for deployment in written] == [4, 1]
