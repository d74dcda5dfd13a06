"""GET /metrics of the real server, read by Prometheus's own parser."""

from __future__ import annotations

import asyncio
import re

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from pbserv.tftp.packet import Error
from tests.support.process import Installed
from tests.tftp.client import fetch


def scrape(nobody: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = nobody.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.documentation for family in families)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_the_counters_move(server: Installed, nobody: httpx.Client) -> None:
    before = scrape(nobody)
    (server.tftp / "boot.bin").write_bytes(b"x" * 3000)
    got = asyncio.run(fetch(server.tftp_port, "boot.bin", ("blksize", 1000), ("tsize", 0)))
    assert got == b"x" * 3000
    assert isinstance(asyncio.run(fetch(server.tftp_port, "none.bin")), Error)
    after = scrape(nobody)
    for name, labels, more in (
        ("pbserv_tftp_requests_total", {"kind": "read"}, 2),
        ("pbserv_tftp_transfers_total", {"direction": "sent", "outcome": "completed"}, 1),
        ("pbserv_tftp_refusals_total", {"code": "1"}, 1),
        ("pbserv_tftp_sent_bytes_total", {}, 3000),
        ("pbserv_tftp_sent_blocks_total", {}, 4),
        ("pbserv_tftp_retransmissions_total", {}, 0),
        ("pbserv_tftp_internal_errors_total", {}, 0),
        ("pbserv_tftp_cache_requests_total", {"result": "miss"}, 1),
        ("pbserv_tftp_transfer_seconds_count", {"direction": "sent"}, 1),
        ("pbserv_tftp_round_trip_seconds_count", {}, 1),
        ("pbserv_tftp_round_trip_seconds_bucket", {"le": "+Inf"}, 1),
    ):
        assert after[key(name, **labels)] - before[key(name, **labels)] == more, name
    assert after[key("pbserv_tftp_cache_bytes")] >= 0  # a file that was just written is not kept
    assert after[key("pbserv_tftp_active_transfers")] == 0


def test_buckets_are_cumulative(nobody: httpx.Client) -> None:
    buckets = [
        (float(dict(labels)["le"]), value)
        for (name, labels), value in scrape(nobody).items()
        if name == "pbserv_tftp_round_trip_seconds_bucket"
    ]
    assert [value for _, value in sorted(buckets)] == sorted(value for _, value in buckets)
    assert {bound for bound, _ in buckets} >= {0.0002, 2.0, float("inf")}


def test_the_process_the_build_and_the_other_services(server: Installed, nobody: httpx.Client) -> None:
    found = scrape(nobody)
    assert found[key("process_resident_memory_bytes")] > 1 << 20
    assert found[key("process_open_fds")] > 3
    assert any(name == "pbserv_build_info" and value == 1 for (name, _), value in found.items())
    assert found[key("pbserv_proxydhcp_packets_total", result="offer")] == 0
    assert found[key("pbserv_imaging_requests_total")] == 0
    assert found[key("pbserv_service_up", service="tftp")] == 1
    server.ok("stop", "tftp")
    try:
        stopped = scrape(nobody)
        assert stopped[key("pbserv_service_up", service="tftp")] == 0
        assert stopped[key("pbserv_tftp_active_transfers")] == 0
    finally:
        server.ok("start", "tftp")


def test_requests_by_what_was_asked_for(server: Installed, admin: httpx.Client, nobody: httpx.Client) -> None:
    before = scrape(nobody)
    made_up = "/s/made-up/files/secret-name"
    asked = [
        (admin.get("/api/v1/devices"), {"area": "api", "method": "GET", "code": "200"}),
        (nobody.post("/api/v1/work", json={}), {"area": "api", "method": "POST", "code": "401"}),
        (nobody.get("/boot.ipxe"), {"area": "boot", "method": "GET", "code": "200"}),
        (nobody.get("/boot/done/none"), {"area": "boot", "method": "GET", "code": "403"}),
        (nobody.get("/files/none"), {"area": "files", "method": "GET", "code": "404"}),
        (nobody.get(made_up), {"area": "files", "method": "GET", "code": "403"}),
        (nobody.get("/client/vmlinuz"), {"area": "client", "method": "GET", "code": "404"}),
        (nobody.post("/client/v1/work"), {"area": "imaging", "method": "POST", "code": "401"}),
        (nobody.get("/"), {"area": "console", "method": "GET", "code": "200"}),
        (nobody.request("PROPFIND", "/coffee/secret-name"), {"area": "other", "method": "other", "code": "404"}),
    ]
    after = scrape(nobody)
    for answer, labels in asked:
        name = key("pbserv_http_requests_total", **{**labels, "code": str(answer.status_code)})
        assert labels["code"] == str(answer.status_code), answer.url
        assert after[name] > before.get(name, 0), labels
    health = key("pbserv_http_requests_total", area="health", method="GET", code="200")
    assert after[health] == before.get(health, 0) + 1


def test_no_names_of_files_or_clients(server: Installed, nobody: httpx.Client) -> None:
    asyncio.run(fetch(server.tftp_port, "secret-name.bin"))
    text = nobody.get("/metrics").text
    assert "secret-name" not in text
    assert not re.search(r"\d+\.\d+\.\d+\.\d+", text)


def test_openmetrics_when_it_is_asked_for(nobody: httpx.Client) -> None:
    answer = nobody.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(answer.text)}
    assert {"pbserv_tftp_transfers", "pbserv_tftp_round_trip_seconds", "pbserv_service_up"} <= names
