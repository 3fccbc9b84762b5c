"""The account: its databases, containers and offers, and which operation a request is."""

from __future__ import annotations

from typing import Any

from tests.simulators.cosmos import queries
from tests.simulators.cosmos.clock import Clock
from tests.simulators.cosmos.containers import Container, Database, Names, check_id
from tests.simulators.cosmos.data_plane import DataPlane
from tests.simulators.cosmos.faults import Intent
from tests.simulators.cosmos.json_values import decode, encode
from tests.simulators.cosmos.offers import Offers
from tests.simulators.cosmos.operations import KINDS, Operation
from tests.simulators.cosmos.refusals import OWNER_NOT_FOUND, Refusal, bad_request, conflict, not_found, not_modelled
from tests.simulators.cosmos.requests import Call, Reply
from tests.simulators.cosmos.sql_evaluator import compile_expression


class Account:
    """Answers a request that was let in. Everything it does is done in one step of the event loop."""

    def __init__(self, clock: Clock, *, strict: bool, serverless: bool, split_after: int | None) -> None:
        self._names = Names(clock)
        self.databases: dict[str, Database] = {}
        self.offers = Offers(self._names, serverless=serverless)
        self.data = DataPlane(clock, self._names, strict=strict, split_after=split_after)
        self.endpoint = ""

    # --- what tests and requests look up

    def container(self, container_id: str, database_id: str | None = None) -> Container:
        """Raises KeyError if no database, or more than one, has such a container."""
        found = [
            database.containers[container_id]
            for database in self.databases.values()
            if database_id in (None, database.id) and container_id in database.containers
        ]
        if len(found) != 1:
            raise KeyError(f"{len(found)} containers are called {container_id}")
        return found[0]

    def intent(self, call: Call) -> Intent:
        """What a request is about to do. Raises what the account raises for a container that is not there."""
        segments = call.segments
        if len(segments) >= 5 and segments[4] == "docs":
            return self.data.intent(self._owner(call), call)
        name = f"{call.method} {segments[::2][-1] if segments else 'account'}"
        return Intent(name, segments[3] if len(segments) >= 4 else None)

    # --- requests

    def answer(self, call: Call, intent: Intent) -> Reply:
        if intent.operation in KINDS or intent.operation == "batch":
            return self.data.answer(self._owner(call), call, intent)
        reply = self._metadata(call, list(call.segments))
        reply.operations.append(Operation("metadata", intent.operation, reply.status, reply.charge, intent.container))
        return reply

    def _metadata(self, call: Call, segments: list[str]) -> Reply:
        match call.method, segments:
            case "GET", []:
                return _json(self._account())
            case "POST", ["dbs"] if not call.says("x-ms-documentdb-isquery"):
                return self._create_database(call)
            case "GET", ["dbs"]:
                return _feed("Databases", [one.body() for one in self.databases.values()])
            case "GET", ["dbs", _]:
                return _json(self._database(call).body())
            case "DELETE", ["dbs", _]:
                return self._delete_database(call)
            case "POST", ["dbs", _, "colls"] if not call.says("x-ms-documentdb-isquery"):
                return self._create_container(call)
            case "GET", ["dbs", _, "colls"]:
                return _feed("DocumentCollections", [one.body() for one in self._database(call).containers.values()])
            case "GET", ["dbs", _, "colls", _]:
                return _json(self._container(call).body())
            case "PUT", ["dbs", _, "colls", _]:
                return self._replace_container(call)
            case "DELETE", ["dbs", _, "colls", _]:
                return self._delete_container(call)
            case "GET", ["dbs", _, "colls", _, "pkranges"]:
                return self._ranges(self._owner(call), call)
            case "POST", ["offers"] if call.says("x-ms-documentdb-isquery"):
                return self._query_offers(call)
            case "GET", ["offers", offer_id] if offer_id in self.offers.by_id:
                return _json(self.offers.by_id[offer_id])
            case "PUT", ["offers", offer_id] if offer_id in self.offers.by_id:
                return _json(self.offers.replace(offer_id, _object(call)))
            case _, ["offers", _]:
                raise not_found()
        raise not_modelled(f"{call.method} /{'/'.join(segments)}")

    def _account(self) -> dict[str, Any]:
        here = [{"name": "Simulated", "databaseAccountEndpoint": self.endpoint}]
        return {
            "_self": "",
            "id": "simulator",
            "_rid": "simulator",
            "media": "//media/",
            "addresses": "//addresses/",
            "_dbs": "//dbs/",
            "writableLocations": here,
            "readableLocations": here,
            "enableMultipleWriteLocations": False,
            "userReplicationPolicy": {"asyncReplication": False, "minReplicaSetSize": 3, "maxReplicasetSize": 4},
            "userConsistencyPolicy": {"defaultConsistencyLevel": "Session"},
            "readPolicy": {"primaryReadCoefficient": 1, "secondaryReadCoefficient": 1},
        }

    def _create_database(self, call: Call) -> Reply:
        body = _object(call)
        if set(body) - {"id"}:
            raise not_modelled(f"a database's {', '.join(sorted(set(body) - {'id'}))}")
        database_id = check_id(body.get("id"))
        if database_id in self.databases:
            raise conflict()
        database = Database(database_id, self._names)
        self._buy(database, call)
        self.databases[database_id] = database
        return _json(database.body(), 201)

    def _delete_database(self, call: Call) -> Reply:
        database = self._database(call)
        for container in database.containers.values():
            self.offers.drop(container)
        self.offers.drop(database)
        del self.databases[database.id]
        return Reply(204, charge=4.95)

    def _create_container(self, call: Call) -> Reply:
        database = self._database(call)
        body = _object(call)
        if check_id(body.get("id")) in database.containers:
            raise conflict()
        container = Container(body, database, self._names)
        self._buy(container, call)
        database.containers[container.id] = container
        return _json(container.body(), 201)

    def _replace_container(self, call: Call) -> Reply:
        container, body = self._container(call), _object(call)
        if body.get("id") != container.id:
            raise bad_request("The id of a container cannot be changed.")
        match = call.etags("if_match")["if_match"]
        if match not in (None, "*", container.etag):
            raise Refusal(412, "Operation cannot be performed because one of the specified precondition is not met.")
        container.take(body)
        return _json(container.body())

    def _delete_container(self, call: Call) -> Reply:
        container = self._container(call)
        self.offers.drop(container)
        del container.database.containers[container.id]
        return Reply(204, charge=4.95)

    def _buy(self, resource: Database | Container, call: Call) -> None:
        autoscale = call.headers.get("x-ms-cosmos-offer-autopilot-settings")
        self.offers.make(
            resource,
            call.headers.get("x-ms-offer-throughput"),
            None if autoscale is None else lambda: decode(autoscale.encode()),
        )

    def _query_offers(self, call: Call) -> Reply:
        statement = queries.read_statement(call.body)
        where = statement.query.where
        if statement.query.fields is not None or statement.query.needs_every_range:
            raise not_modelled("a query of offers other than SELECT * … WHERE")
        keep = compile_expression(where, statement.parameters) if where is not None else None
        return _feed("Offers", [one for one in self.offers.by_id.values() if keep is None or keep(one) is True])

    def _ranges(self, container: Container, call: Call) -> Reply:
        """The current ranges; with If-None-Match those that came since, and 304 when there are none."""
        known = call.headers.get("if-none-match")
        generation = container.ranges.generation
        etag = f'"{generation}"'
        since = 0
        if known is not None:
            if not known.strip('"').isdecimal():
                raise bad_request(f"If-None-Match '{known}' is not an etag of partition key ranges.")
            since = int(known.strip('"'))
        if since >= generation:
            return Reply(304, headers={"etag": etag})
        rows = [
            {
                "_rid": f"{container.body()['_rid']}{one.id}",
                "id": one.id,
                "_etag": etag,
                "minInclusive": one.low,
                "maxExclusive": one.high,
                "ridPrefix": int(one.id),
                "_self": f"{container.link}pkranges/{one.id}/",
                "throughputFraction": 1 / len(container.ranges.ranges),
                "status": "online",
                "parents": list(one.parents),
                "_ts": self._names.ts(),
            }
            for one in container.ranges.ranges
            if one.generation > since
        ]
        reply = _feed("PartitionKeyRanges", rows)
        reply.headers["etag"] = etag
        return reply

    def _database(self, call: Call, *, substatus: int = 0) -> Database:
        found = self.databases.get(call.segments[1])
        if found is None:
            raise not_found(substatus=substatus)
        return found

    def _container(self, call: Call) -> Container:
        found = self._database(call, substatus=OWNER_NOT_FOUND).containers.get(call.segments[3])
        if found is None:
            raise not_found()
        return found

    def _owner(self, call: Call) -> Container:
        """The container of a request about what is in it."""
        database = self.databases.get(call.segments[1])
        container = database.containers.get(call.segments[3]) if database else None
        if container is None or call.segments[2] != "colls":
            raise not_found(substatus=OWNER_NOT_FOUND)
        return container


def _object(call: Call) -> dict[str, Any]:
    if not isinstance(call.body, dict):
        raise bad_request("The input content is invalid because it is not a JSON object.")
    return call.body


def _json(body: dict[str, Any], status: int = 200) -> Reply:
    headers = {"etag": body["_etag"]} if "_etag" in body else {}
    return Reply(status, encode(body), headers, charge=1.0)


def _feed(name: str, rows: list[Any]) -> Reply:
    return Reply(200, encode({"_rid": "", name: rows, "_count": len(rows)}), charge=1.0)
