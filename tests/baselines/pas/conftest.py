"""Fixtures of the PAS tests."""

import pytest

from palign_bench.questionnaire.inventory import Inventory, ipip_neo_300
from palign_bench.questionnaire.protocol import PROTOCOLS, EvaluationProtocol


@pytest.fixture(params=["corrected", "as_released"])
def protocol(request: pytest.FixtureRequest) -> EvaluationProtocol:
    return PROTOCOLS[request.param](ipip_neo_300())


@pytest.fixture
def questionnaire() -> Inventory:
    return ipip_neo_300()
