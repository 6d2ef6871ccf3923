"""What inference refuses to be told."""

import pytest
from pydantic import ValidationError

from homeostat_inference.settings import InferenceSettings


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", ":1", "10.1.2.3:1"])
@pytest.mark.parametrize("which", ["grpc_address", "http_address"])
def test_where_others_come_in_the_secret_that_everybody_knows_is_refused(
    which: str, address: str
) -> None:
    with pytest.raises(ValidationError, match="CLIENT_KEY_SECRET"):
        InferenceSettings.model_validate({which: address})
    InferenceSettings.model_validate({which: address, "client_key_secret": "ours"})


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1"])
def test_on_a_laptop_no_secret_is_needed(address: str) -> None:
    InferenceSettings.model_validate({"http_address": address, "grpc_address": address})


def test_more_workers_than_the_shadow_can_be_given_boards_of_are_refused() -> None:
    assert InferenceSettings(workers=32).workers == 32
    with pytest.raises(ValidationError):
        InferenceSettings(workers=33)


def test_an_empty_address_says_that_there_is_no_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEOSTAT_INFERENCE_LEDGER_ADDRESS", "")
    assert InferenceSettings().ledger_address is None
