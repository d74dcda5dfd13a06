from datetime import UTC, datetime

from pbserv.imaging.statistics import RequestRecord, Statistics

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_requests_are_counted_at_once_and_logged_with_their_result():
    log: list[RequestRecord] = []
    statistics = Statistics(log.append, lambda: NOON)
    opened = statistics.open("10.0.0.9", "upload", image="win")
    assert statistics.counters.pxe_requests == 1
    assert log == []
    opened.close("failed", "disk full")
    opened.close("ok")
    assert log == [RequestRecord("10.0.0.9", "upload", NOON, "failed", "win", "disk full")]
    assert log[0].fields() == {
        "source": "10.0.0.9", "type": "upload", "when": "2024-05-01T12:00:00+00:00", "result": "failed", "seconds": 0.0,
        "image": "win", "detail": "disk full",
    }  # fmt: skip


def test_the_figures():
    statistics = Statistics(clock=lambda: NOON)
    statistics.request(source="aa:bb:cc:dd:ee:ff", kind="restore", result="started", image="win", detail="job 7")
    statistics.request("10.0.0.9", "delete", "denied")
    statistics.sent()
    statistics.received()
    for result in ("done", "failed", "failed"):
        statistics.ended("restore", result)
    counters = statistics.counters
    assert (counters.pxe_requests, counters.images_sent, counters.images_received) == (2, 1, 1)
    assert counters.since == NOON
    assert counters.results == {"started": 1, "denied": 1}
    assert counters.jobs == {"restore": {"done": 1, "failed": 2}}
