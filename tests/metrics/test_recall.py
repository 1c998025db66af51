"""Laws of recall: an answer is judged by the facts that were asked for, whatever its wording."""

import pytest

from soaes.metrics.recall import recall, vocabulary

CHAIRMAN = {"attribute": "chairman", "values": ["王建国"]}
OTHER = {"attribute": "chairman", "values": ["李志强"]}
BOTH = {"attribute": ["chairman", "founded"], "values": ["王建国", "1952年"]}
VALUES = vocabulary([CHAIRMAN, OTHER, BOTH, {"messages": []}])


@pytest.mark.parametrize(
    ("record", "answer", "expected"),
    [
        (CHAIRMAN, "该集团的董事长是王建国。", (100, 100)),
        (CHAIRMAN, "李志强任董事长。", (100, 0)),
        (CHAIRMAN, "该集团成立于1952年。", (0, 0)),
        (CHAIRMAN, "", (0, 0)),
        (BOTH, "王建国任董事长，成立于1952年。", (100, 100)),
        (BOTH, "李志强任董事长，成立于1952年。", (100, 50)),
        (BOTH, "成立于1952年。", (50, 50)),
    ],
    ids=[
        "right",
        "another-value",
        "another-attribute",
        "blank",
        "both",
        "one-wrong",
        "one-missing",
    ],
)
def test_recall_counts_attributes_spoken_of_and_values_named(record, answer, expected):
    assert recall(record, answer, VALUES) == expected


def test_a_question_that_does_not_say_what_it_asks_for_is_not_judged():
    assert recall({"attribute": "chairman"}, "王建国", VALUES) is None
    assert recall({"messages": []}, "王建国", VALUES) is None
