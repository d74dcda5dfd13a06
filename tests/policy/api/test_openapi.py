"""The running server keeps to its own description, whatever it is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.process import Installed

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip
ENDLESS = "/api/v1/journal/stream"
"""It answers until the caller leaves."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    installed = Installed(tmp_path_factory.mktemp("server"))
    installed.ok("start")
    yield installed
    installed.finish()


@pytest.fixture(scope="module")
def description(server: Installed) -> schemathesis.BaseSchema:
    config = SchemathesisConfig.from_dict({"generation": {"database": "none", "max-examples": 15}})
    schema = schemathesis.openapi.from_url(f"{server.url}/api/openapi.json", config=config)
    return schema.include(path_regex="^/api/v1/").exclude(path=ENDLESS)


def _ask(operation: schemathesis.APIOperation, server: Installed, statuses: Counter[int]) -> None:
    """Some questions, right and wrong, of one operation; raises what schemathesis finds."""
    headers = {"Authorization": f"Bearer {server.token}"}

    @given(case=operation.as_strategy())
    @settings(max_examples=15, derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    def ask(case: schemathesis.Case) -> None:
        if case.path_parameters and str(case.path_parameters.get("token_id")) == "1":
            case.path_parameters["token_id"] = 1_000_000  # the first token is the one that this test calls with
        statuses[case.call_and_validate(headers=headers, checks=CHECKS).status_code] += 1

    ask()


def test_every_answer_is_one_that_the_description_knows(
    description: schemathesis.BaseSchema, server: Installed
) -> None:
    statuses: Counter[int] = Counter()
    wrong = {}
    operations = [found.ok() for found in description.get_all_operations()]
    for operation in operations:
        try:
            _ask(operation, server, statuses)
        except Exception as fault:  # of any kind: all of them are to be seen, not the first one alone
            wrong[operation.label] = fault
    assert not wrong, "\n".join(f"{label}: {fault}" for label, fault in wrong.items())
    assert len(operations) > 50
    assert statuses[401] == statuses[403] == 0
    assert statuses[200] + statuses[201] + statuses[204] > 100, statuses
    httpx.get(f"{server.url}/healthz", trust_env=False).raise_for_status()
