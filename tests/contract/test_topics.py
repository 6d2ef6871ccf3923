"""The topic table, its samples and its page say the same."""

from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict, Parse

from homeostat.columns import unpack
from homeostat.topics import PREDICTIONS, TOPICS, Topic, topic

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "proto" / "samples"


@pytest.mark.parametrize("each", TOPICS, ids=lambda each: each.name)
def test_a_topics_sample_reads_as_its_message(each: Topic) -> None:
    text = (SAMPLES / f"{each.name}.json").read_text()
    message = Parse(text, each.message())
    assert each.message.FromString(message.SerializeToString()) == message
    assert MessageToDict(message)["modelName"] == "flights"


def test_every_sample_belongs_to_a_topic() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} == {each.name for each in TOPICS}


def test_a_sample_blocks_columns_unpack() -> None:
    block = Parse((SAMPLES / f"{PREDICTIONS.name}.json").read_text(), PREDICTIONS.message())
    columns = {each.name: unpack(each, block.row_count) for each in block.inputs}
    assert columns["carrier"][0].tolist() == ["UA", "AA"]
    assert columns["visib"][1].tolist() == [True, False]


def test_topics_are_found_by_name() -> None:
    assert [topic(each.name) for each in TOPICS] == list(TOPICS)


def test_names_follow_the_house_rule() -> None:
    for each in TOPICS:
        assert each.name.startswith("homeostat.")
        assert each.name.endswith(".v1")
        assert each.dead_letter == f"{each.name}.dlq"
