"""
Requests made from the OpenAPI document by schemathesis: single ones, and chains that go on with what came back.

Bounded: half a minute each. With RUNCLAIM_SCHEMATHESIS=500 it looks longer.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis.checks import CHECKS, load_all_checks

from tests.api.conftest import INPUT, Office

load_all_checks()
EXAMPLES = int(os.environ.get("RUNCLAIM_SCHEMATHESIS", "15"))
#: The document says nothing of which flows, runs and claims there are: what fits it may still be refused.
LEFT_OUT = {"positive_data_acceptance", "max_response_time"}
OPERATIONS = 24


def quick(**more):
    """As many examples as were asked for, the same ones each time."""
    return settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
        **more,
    )


def checks():
    return [CHECKS.get_one(name) for name in CHECKS.get_all_names() if name not in LEFT_OUT]


class Fuzzed(Office):
    """An office that takes any number of requests, and the document as schemathesis is given it."""

    def __init__(self, url):
        super().__init__(url, api_rate="1000000/minute")
        self.served.server.quota._guesses = self.served.server.quota._limit
        self.asked = Counter()
        # A stream would last as long as its run.
        self.how = {"headers": {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}}

    @property
    def schema(self):
        document = self.client.get("/openapi.json").json
        for found in document["paths"].values():
            for operation in found.values():
                # Nothing to wait for.
                told = operation.get("parameters", [])
                operation["parameters"] = [each for each in told if each["name"] not in {"Prefer", "Last-Event-ID"}]
        # The one flow that there is: most of what is made up of the document alone would end at its name.
        parts = document["components"]["schemas"]
        parts["EnqueueRequest"]["properties"] |= {"flow": {"enum": ["review"]}}
        parts["EnqueueRequest"]["properties"]["input"] = {
            "type": "object",
            "properties": {"repo": {"type": "string", "minLength": 1}, "number": {"type": "integer"}},
            "required": ["repo", "number"],
            "examples": [INPUT],
        }
        parts["WorkRequest"]["properties"] |= {
            "flow": {"enum": ["review"]},
            "phases": {"type": "array", "items": {"enum": ["plan", "deliver"]}, "minItems": 1, "maxItems": 2},
        }
        return schemathesis.openapi.from_dict(document)

    def check(self, case):
        """Send it, and hold the answer against the document."""
        self.asked[f"{case.method} {case.path}"] += 1
        response = case.call(base_url=f"http://127.0.0.1:{self.port}", **self.how)
        self.judge(case, response)

    def judge(self, case, response):
        case.validate_response(response, checks=checks(), transport_kwargs=self.how)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def office(request):
    on_sqlite = request.param == "sqlite"
    made = Fuzzed(request.getfixturevalue("sqlite_url" if on_sqlite else "postgres_url"))
    with made.served:
        yield made
    made.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
def test_no_request_finds_an_answer_that_the_document_does_not_have(office, record_property):
    """
    INVARIANT: what the document says is what the server does.

    Breaks if a route answers a status, a header or a body that it does not declare, or with 500.
    """
    for each in office.schema.get_all_operations():
        operation = each.ok()

        @quick()
        @given(case=operation.as_strategy())
        def asked(case):
            office.check(case)

        asked()

    record_property("requests", sum(office.asked.values()))
    assert OPERATIONS == len(office.asked)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
def test_no_chain_of_requests_finds_one_either(office, record_property):
    """Runs are made, and what was told of them is asked for, changed, claimed and settled in any order."""
    address = f"http://127.0.0.1:{office.port}"

    class Chains(office.schema.as_state_machine()):
        def setup(self):
            # Each chain begins with an empty ledger: the same requests get the same answers.
            for table in ("runs", "run_keys", "answers"):
                office.bench.execute(f"DELETE FROM runclaim_{table}")

        def get_call_kwargs(self, case):
            office.asked[f"{case.method} {case.path}"] += 1
            return {"base_url": address, **office.how}

        def validate_response(self, response, case, additional_checks=(), **_how):
            office.judge(case, response)

    Chains.run(settings=quick(stateful_step_count=8))

    record_property("requests", sum(office.asked.values()))
    assert len(office.asked) >= 6
