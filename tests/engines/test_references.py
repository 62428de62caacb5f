from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.engines.base import Site
from envctl.engines.references import check, endpoints, referred, resolve
from envctl.errors import SpecError
from envctl.model.topology import Kafka, Postgres, Redis, Service, Source

MakeSite = Callable[..., Site]
DB = Postgres(name="shop-db", version="15", standbys=1, databases=("orders", "catalog"))
BUS = Kafka(name="bus", version="4.1", brokers=3)
CATALOG = Service(name="catalog", source=Source("tree", "."), command=("x",), ports={"http": 8080, "grpc": 9000})


def user(**env: str) -> Service:
    return Service(name="user", line=7, source=Source("tree", "."), command=("x",), env=env)


def problems(site: Site) -> list[str]:
    with pytest.raises(SpecError) as caught:
        check(site.topology, site.selected, site.stubbed)
    return [str(problem) for problem in caught.value.problems]


def test_every_engine_says_where_it_is_reached(site: MakeSite) -> None:
    known = endpoints(site(DB, BUS, CATALOG, Redis(name="cache", version="7")).topology)
    values = {
        "${shop-db.orders.url}": "postgresql://orders@shop-db-0:5432,shop-db-1:5432/orders?target_session_attrs=read-write",
        "${shop-db.orders.standby_url}": "postgresql://orders@shop-db-0:5432,shop-db-1:5432/orders?target_session_attrs=prefer-standby",
        "${bus.bootstrap}": "bus-0:9092,bus-1:9092,bus-2:9092",
        "${cache.url}": "redis://cache:6379/0",
        "${catalog.http.url}/items": "http://catalog:8080/items",
        "${catalog.grpc.address}": "catalog:9000",
        "${catalog.host}:${catalog.http.port}": "catalog:8080",
        "$${catalog.host}": "${catalog.host}",
    }
    assert {text: resolve(text, known) for text in values} == values


@given(st.text(st.characters(blacklist_characters="$")), st.text(st.characters(blacklist_characters="$")))
def test_the_text_around_a_reference_stays_as_it_is(before: str, after: str) -> None:
    assert resolve(f"{before}${{a.b.c}}{after}", {"a": {"b.c": "$1\\g<0>"}}) == f"{before}$1\\g<0>{after}"


def test_all_references_that_lead_nowhere_are_named_at_once_with_what_there_is(site: MakeSite) -> None:
    found = problems(site(DB, CATALOG, user(A="${shopdb.orders.url}", B="${shop-db.order.url}", C="${catalog.host}", D="${catalog}")))
    assert len(found) == 3
    assert "topology.yaml:7: components.user.env.A: ${shopdb.orders.url}: there is no component 'shopdb'" in found[0]
    assert "did you mean 'shop-db'?" in found[0]
    assert "did you mean 'orders.url'?" in found[1]
    assert "catalog has no endpoint ''" in found[2]


def test_a_reference_to_what_is_left_out_is_an_error_and_to_a_stub_is_not(site: MakeSite) -> None:
    wanted = user(URL="${catalog.http.url}")
    left_out = site(CATALOG, wanted, selected=("user",))
    assert "catalog is left out of this environment and not stubbed" in problems(left_out)[0]
    stubbed = site(CATALOG, wanted, stubbed=("catalog",))
    check(stubbed.topology, stubbed.selected, stubbed.stubbed)


def test_what_a_component_refers_to_is_known_without_resolving_it() -> None:
    assert referred(user(A="${a.b} ${c.d}", B="$${e.f}")) == {"a", "c"}
