"""A local model answers as a server would: with the reason why it stopped, and what it took."""

from soaes.data.synthesis.calls import Request
from soaes.decode.backends.local_author import LocalAuthor
from soaes.pipeline.runtime import Execution
from tests.helpers.toys import save_pair


def test_a_local_model_says_why_it_stopped_and_refuses_what_does_not_fit(tmp_path):
    save_pair(tmp_path)
    author = LocalAuthor(tmp_path / "target", Execution())
    messages = ({"role": "user", "content": "问题"},)
    reply = author.answer(Request("target", messages, {"max_new_tokens": 3}))
    assert reply.finish_reason in ("length", "stop") and 1 <= reply.completion_tokens <= 3
    assert (reply.finish_reason == "length") == (reply.completion_tokens == 3)
    assert reply.prompt_tokens > 2
    too_long = author.answer(Request("target", messages, {"max_new_tokens": 10**6}))
    assert too_long.finish_reason == "refused: too long" and "positions" in too_long.content
