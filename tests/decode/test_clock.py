"""The clock waits for a GPU before and after an action, and for nothing on a CPU."""

import torch

from soaes.decode import clock


def test_the_clock_waits_for_the_device_of_the_action(monkeypatch):
    events = []
    monkeypatch.setattr(torch.cuda, "synchronize", events.append)
    monkeypatch.setattr(clock.time, "perf_counter", lambda: events.append("clock") or len(events))
    seconds, result = clock.timed("cuda:1", lambda *given: events.append("action") or given, 1, 2)
    assert events == ["cuda:1", "clock", "action", "cuda:1", "clock"]
    assert (seconds, result) == (3, (1, 2))
    events.clear()
    clock.timed(torch.device("cpu"), lambda: events.append("action"))
    assert events == ["clock", "action", "clock"]
