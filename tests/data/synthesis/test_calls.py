"""Laws of the log of calls: what is answered once is never lost, and never asked again."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from soaes.data.synthesis.calls import CallLog, Reply, Request


def request(number=0, model="m", **parameters):
    return Request(model, ({"role": "user", "content": f"问题 {number} \ud800"},), parameters)


def log_of(folder, *requests):
    return CallLog(folder, {each.digest for each in requests})


def test_a_call_is_known_by_model_messages_and_parameters_in_any_order():
    first = request(temperature=1, top_p=0.5)
    assert first.digest == request(top_p=0.5, temperature=1).digest
    others = [request(1), request(model="n"), request(temperature=0.5)]
    assert len({first.digest, *(other.digest for other in others)}) == 4


def test_an_answer_is_on_the_disk_and_read_again(tmp_path):
    asked, reply = request(), Reply("答案\n\u2028\ud800", "stop", 3, 4)
    log = log_of(tmp_path, asked)
    assert log.get(asked) is None
    log.add(asked, reply)
    assert log.get(asked) == log_of(tmp_path, asked).get(asked) == reply
    assert log_of(tmp_path).get(asked) is None  # not wanted, not kept in memory


@pytest.mark.parametrize("cut", [1, 5, 90, 200])
def test_half_a_line_of_a_killed_process_costs_that_call_alone(tmp_path, cut):
    first, second, third = request(1), request(2), request(3)
    log = log_of(tmp_path, first, second)
    log.add(first, Reply("1", "stop"))
    log.add(second, Reply("2", "stop"))
    content = log.path.read_bytes()
    log.path.write_bytes(content[:-cut])
    log_of(tmp_path).add(third, Reply("3", "stop"))
    again = log_of(tmp_path, first, second, third)
    found = [again.get(each) for each in (first, second, third)]
    assert found[0] == Reply("1", "stop") and found[2] == Reply("3", "stop")
    # a line that lacks its end alone is whole again when the next one is added
    assert (found[1] is None) == (cut > 1) and again.num_damaged == (cut > 1)


def test_many_threads_and_several_logs_write_whole_lines(tmp_path):
    requests = [request(number) for number in range(64)]
    logs = [log_of(tmp_path, *requests) for _ in range(4)]
    with ThreadPoolExecutor(16) as pool:
        for index, each in enumerate(requests):
            pool.submit(logs[index % 4].add, each, Reply(str(index), "stop"))
    lines = (tmp_path / "calls.jsonl").read_text("utf-8").splitlines()
    assert len({json.loads(line)["digest"] for line in lines}) == len(lines) == 64
    again = log_of(tmp_path, *requests)
    assert [again.get(each).content for each in requests] == [str(n) for n in range(64)]


def test_what_a_server_refused_is_asked_again_by_the_next_process(tmp_path):
    asked, refusal = request(), Reply("max_model_len is 512", "refused: 400")
    log = log_of(tmp_path, asked)
    log.add(asked, refusal)
    assert log.get(asked) == refusal  # within a process each request is made once
    again = log_of(tmp_path, asked)
    assert again.get(asked) is None and not again.num_damaged
    again.add(asked, Reply("答案", "stop"))
    assert log_of(tmp_path, asked).get(asked) == Reply("答案", "stop")
