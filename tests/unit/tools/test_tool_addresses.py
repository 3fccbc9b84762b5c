"""Where a tool server may be: addresses in every spelling, names that resolve to them, and what comes after a redirect."""

from __future__ import annotations

from collections.abc import Sequence

import httpx2
import pytest

from serve_app.tools.addresses import host_problem, refusal
from serve_app.tools.config import HttpServer
from serve_app.tools.guarded_http import AddressRefused, GuardedTransport, resolved
from serve_app.tools.session import HttpStatus, reason

REFUSED = [
    *("127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.1", "0.1.2.3"),
    *("10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255"),
    *("100.64.0.1", "100.100.100.200", "100.127.255.255", "169.254.0.1", "169.254.169.254", "169.254.170.2"),
    *("168.63.129.16", "192.0.0.1", "192.0.0.192", "192.0.2.1", "198.51.100.7", "203.0.113.9", "192.88.99.1"),
    *("198.18.0.1", "198.19.255.255", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::7f00:1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:8.8.8.8"),
    *("::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1"),
    *(
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
    ),
    *(
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fdff::1",
        "fe80::1",
        "fe80::1%eth0",
        "2600::1%eth0",
        "febf::1",
    ),
    *("fec0::1", "ff02::1", "ff0e::1", "4000::1", "2600:1f18::5efe:127.0.0.1", "2600:1f18::200:5efe:10.0.0.1"),
    *("", "localhost", "1.2.3", "0x7f.0.0.1", "not an address"),
]
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "93.184.215.14",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450:4001:80b::200e",
]
ODD_HOSTS = [
    *("2130706433", "0x7f000001", "017700000001", "0177.0.0.1", "0x7f.0.0.1", "127.1", "127.0.1", "0", "1.2.3.4.5"),
    *(
        "127.0.0.1.",
        "127.0.0.01",
        "999.1.1.1",
        "[fe80::1%25eth0]",
        "fe80::1%eth0",
        "a_b@c",
        "a b",
        "-",
        "..",
        "a..b",
        "",
    ),
    *("::g", "x" * 254, "ex\u00e4mple.com", "\uff11\uff12\uff17.0.0.1", "a/b", "a\\b", "a#b"),
]


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_is_not_plainly_public_is_refused(address: str) -> None:
    assert refusal(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_fine(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_a_host_in_an_unusual_spelling_is_refused_before_it_is_looked_up(host: str) -> None:
    assert host_problem(host)


@pytest.mark.parametrize(
    "host", ["example.com", "a-b.example.com.", "8.8.8.8", "[2606:4700::1111]", "xn--exmple-cua.com"]
)
def test_usual_hosts_are_fine(host: str) -> None:
    assert host_problem(host) is None


class Inner(httpx2.AsyncBaseTransport):
    """Records where a connection would have gone. ``refusing`` are addresses at which nobody listens."""

    def __init__(self, *refusing: str) -> None:
        self.sent: list[httpx2.Request] = []
        self.refusing = refusing
        self.answers: list[httpx2.Response] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.append(request)
        if request.url.host in self.refusing:
            raise httpx2.ConnectError("refused")
        return self.answers.pop(0) if self.answers else httpx2.Response(200)

    @property
    def hosts(self) -> list[str]:
        return [request.url.host for request in self.sent]


class Resolver:
    """Answers with the next of its lists each time, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


URL = "https://tools.example.com/mcp"


def client(inner: Inner, resolver: Resolver | None = None, url: str = URL, private: bool = False) -> httpx2.AsyncClient:
    transport = GuardedTransport(inner, url, private=private, resolve=resolver or Resolver(["8.8.8.8"]))
    return httpx2.AsyncClient(transport=transport, follow_redirects=True, max_redirects=3)


async def test_the_connection_goes_to_the_checked_address_under_the_hosts_name() -> None:
    inner = Inner()
    async with client(inner) as http:
        reply = await http.post(URL, json={"a": 1})
    (sent,) = inner.sent
    assert (sent.url.host, sent.headers["host"]) == ("8.8.8.8", "tools.example.com")
    assert sent.extensions["sni_hostname"] == "tools.example.com"
    assert reply.request.url.host == "tools.example.com"


@pytest.mark.parametrize("address", [one for one in REFUSED if one])
async def test_a_name_that_leads_to_such_an_address_is_not_connected_to(address: str) -> None:
    inner = Inner()
    async with client(inner, Resolver(["8.8.8.8", address])) as http:
        with pytest.raises(AddressRefused):
            await http.get(URL)
    assert inner.sent == []


async def test_a_name_that_leads_elsewhere_the_second_time_is_connected_to_where_it_led_first() -> None:
    inner = Inner()
    rebinding = Resolver(["8.8.8.8"], ["127.0.0.1"])
    async with client(inner, rebinding) as http:
        for _ in range(3):
            await http.get(URL)
    assert inner.hosts == ["8.8.8.8"] * 3
    assert len(rebinding.asked) == 1


async def test_after_its_addresses_have_grown_old_a_name_is_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Inner()
    monkeypatch.setattr("serve_app.tools.guarded_http.KEPT_S", -1.0)
    async with client(inner, Resolver(["8.8.8.8"], ["127.0.0.1"])) as http:
        await http.get(URL)
        with pytest.raises(AddressRefused):
            await http.get(URL)
    assert inner.hosts == ["8.8.8.8"]


async def test_another_address_is_tried_where_one_does_not_answer() -> None:
    inner = Inner("8.8.8.8")
    async with client(inner, Resolver(["8.8.8.8", "1.1.1.1"])) as http:
        assert (await http.get(URL)).status_code == 200
    assert inner.hosts == ["8.8.8.8", "1.1.1.1"]


async def test_a_name_is_looked_up_again_when_no_address_answers() -> None:
    inner = Inner("8.8.8.8")
    async with client(inner, Resolver(["8.8.8.8"], ["1.1.1.1"])) as http:
        with pytest.raises(httpx2.ConnectError):
            await http.get(URL)
        assert (await http.get(URL)).status_code == 200


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize(
    "location",
    [
        *("http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:8265/api/jobs/", "https://evil.test/mcp"),
        *("https://tools.example.com:444/mcp", "http://tools.example.com/mcp", "//evil.test/", "https://[::1]/mcp"),
        *("https://tools.example.com.evil.test/", "https://2130706433/", "https://tools.example.com@evil.test/"),
    ],
)
async def test_a_redirect_does_not_leave_the_servers_origin(location: str, private: bool) -> None:
    inner = Inner()
    inner.answers = [httpx2.Response(307, headers={"location": location})]
    async with client(inner, private=private) as http:
        with pytest.raises((AddressRefused, httpx2.InvalidURL, httpx2.UnsupportedProtocol)):
            await http.post(URL, json={})
    assert len(inner.sent) == 1


async def test_a_redirect_within_the_origin_is_followed_to_a_checked_address() -> None:
    inner = Inner()
    inner.answers = [httpx2.Response(307, headers={"location": "/mcp/"})]
    async with client(inner) as http:
        assert (await http.post(URL, json={})).status_code == 200
    assert inner.hosts == ["8.8.8.8", "8.8.8.8"]
    assert inner.sent[1].url.path == "/mcp/"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://127.0.0.1/mcp",
            "http://127.1/mcp",
            "http://0x7f000001/mcp",
            "http://2130706433/mcp",
            "http://[::1]/mcp",
        ),
        *("http://[::ffff:127.0.0.1]/mcp", "http://169.254.169.254/latest", "http://user:secret@example.com/mcp"),
        *(
            "http://localhost/mcp",
            "http://10.1.2.3/mcp",
            "http://127.0.0.1./mcp",
            "http://\uff11\uff12\uff17.0.0.1/mcp",
        ),
    ],
)
async def test_an_entry_that_is_not_declared_private_reaches_nothing_private(url: str) -> None:
    inner = Inner()
    with pytest.raises((httpx2.ConnectError, httpx2.InvalidURL)) as refused:
        transport = GuardedTransport(inner, url, private=False, resolve=resolved)
        async with httpx2.AsyncClient(transport=transport) as http:
            await http.get(url)
    assert inner.sent == []
    assert "secret" not in str(refused.value)


async def test_a_private_entry_is_asked_where_it_is_said_to_be() -> None:
    inner = Inner()
    resolver = Resolver(["8.8.8.8"])
    async with client(inner, resolver, "http://127.0.0.1:9000/mcp", private=True) as http:
        await http.get("http://127.0.0.1:9000/mcp")
    assert inner.hosts == ["127.0.0.1"]
    assert resolver.asked == []


def test_the_reason_says_what_to_do_where_the_operator_means_it() -> None:
    config = HttpServer(name="box", url="http://10.0.0.1/mcp")
    words = reason(AddressRefused("its address 10.0.0.1 is not public (private)"), config, 5, HttpStatus())
    assert "10.0.0.1 is not public" in words
    assert '"private": true' in words
