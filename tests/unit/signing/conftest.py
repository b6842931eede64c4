from __future__ import annotations

import pytest

from rundiff.signing.contract import Signer
from tests.unit.signing.signers import SIGNERS, signer_of


@pytest.fixture(params=SIGNERS)
def signer(request: pytest.FixtureRequest) -> Signer:
    return signer_of(request.param)
