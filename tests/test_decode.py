"""Decoders on toys: the engine is the model, greedy output is the target's own, sampled output has the target's law."""

import itertools

import pytest
import torch
from toys import near, toy

from soaes.decode.autoregressive import Autoregressive
from soaes.decode.distributions import nucleus, warp
from soaes.decode.engine import Engine
from soaes.decode.prompt_lookup import PromptLookup, lookup
from soaes.decode.speculative import Speculative

NEVER = -1  # an eos that no model emits
torch.set_num_threads(1)


def ids(count, seed=0, vocabulary=64):
    return torch.randint(vocabulary, (count,), generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def reference(model, ids_T):
    return model(ids_T[None]).logits[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 4, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
        {"num_key_value_heads": 1, "num_hidden_layers": 3},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    ],
)
def test_engine_is_the_model_however_the_text_arrives(changes):
    model, text = toy(1, **changes), ids(40)
    engine, expected = Engine(model), reference(model, text)
    engine.begin(40)
    pieces = [engine.forward(piece) for piece in text.split([10, 1, 1, 4, 7, 1, 16])]
    assert torch.allclose(torch.cat(pieces), expected, atol=1e-4)
    engine.rollback(0)
    assert torch.allclose(engine.forward(text, tail=3), expected[-3:], atol=1e-4)


def test_rollback_forgets_and_the_text_goes_on():
    model, text, other = toy(2), ids(30), ids(30, seed=5)
    engine = Engine(model)
    engine.begin(60)
    engine.forward(text)
    engine.forward(other[:9])
    engine.rollback(12)
    branch = torch.cat([text[:12], other])
    assert torch.allclose(engine.forward(other), reference(model, branch)[12:], atol=1e-4)
    assert engine.length == 42


def test_buffers_grow_between_texts():
    model, engine = toy(3), Engine(toy(3))
    for count in (10, 300, 20):
        engine.begin(count)
        text = ids(count)
        parts = [engine.forward(text[:-3]), engine.forward(text[-3:])]
        assert torch.allclose(torch.cat(parts), reference(model, text), atol=2e-4)


def test_engine_refuses_what_it_would_get_wrong():
    with pytest.raises(ValueError, match="sliding_attention"):
        Engine(toy(0, use_sliding_window=True, sliding_window=4, max_window_layers=1))
    with pytest.raises(ValueError, match="513 positions, the model has 512"):
        Engine(toy(0)).begin(513)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_greedy_speculation_is_the_target_token_for_token(noise, n):
    for seed in (1, 2):
        model = toy(seed)
        target, draft, prompt = Engine(model), Engine(near(model, noise, seed)), ids(5 + n, seed).tolist()
        plain = Autoregressive(target, 0.0, 1.0, NEVER).generate(prompt, 40, torch.Generator())
        fast = Speculative(target, draft, n, 0.0, 1.0, NEVER).generate(prompt, 40, torch.Generator())
        assert fast.tokens == plain.tokens and plain.steps == 40
        assert fast.accepted + fast.steps == 40 and fast.drafted == sum(fast.tests_per_position)
        if noise == 0:  # the draft is the target's twin: every block is accepted whole, so its cache lost no token
            assert fast.steps == -(-40 // (n + 1)) and fast.accepts_per_position == fast.tests_per_position


@pytest.mark.parametrize("n, match", [(1, 1), (3, 2), (5, 3)])
def test_greedy_lookup_is_the_target_token_for_token(n, match):
    for seed in range(4):
        target, prompt = Engine(toy(seed)), ids(12, seed).tolist() * 2
        plain = Autoregressive(target, 0.0, 1.0, NEVER).generate(prompt, 60, torch.Generator())
        fast = PromptLookup(target, n, match, 0.0, 1.0, NEVER).generate(prompt, 60, torch.Generator())
        assert fast.tokens == plain.tokens and fast.drafted > 0 and fast.accepted + fast.steps == 60


def test_lookup_takes_the_longest_match_and_the_latest():
    assert lookup([7, 8, 9, 1, 8, 2, 7, 8], 2, 3) == [9, 1, 8]
    assert lookup([7, 8, 9, 1, 8, 2, 7, 8], 1, 3) == [2, 7, 8]
    assert lookup([5, 6, 5, 4, 5], 3, 9) == [4, 5]
    assert lookup([3, 3, 3], 2, 4) == [3]
    assert lookup([1, 2, 3], 3, 4) == lookup([1], 3, 4) == lookup([1, 1], 1, 0) == []


def decoders(model, n, temperature, eos, noise=0.05):
    target, draft = Engine(model), Engine(near(model, noise))
    yield Speculative(target, draft, n, temperature, 0.9, eos)
    yield PromptLookup(target, n, 2, temperature, 0.9, eos)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_eos_ends_the_text_wherever_it_stands_in_a_block(temperature):
    model, prompt = toy(1), ids(6).tolist() * 2
    plain = Autoregressive(Engine(model), 0.0, 1.0, NEVER).generate(prompt, 30, torch.Generator()).tokens
    ended = 0
    for eos, n in itertools.product(dict.fromkeys(plain[:9]), (1, 3, 4)):
        for decoder in decoders(model, n, temperature, eos):
            made = decoder.generate(prompt, 30, torch.Generator().manual_seed(n)).tokens
            assert eos not in made[:-1] and (made[-1] == eos or len(made) == 30)
            ended += made[-1] == eos
            assert temperature or made == plain[: plain.index(eos) + 1]
    assert ended > 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_max_new_tokens_is_exact_also_below_n(temperature, limit):
    for decoder in decoders(toy(1), 4, temperature, NEVER):
        assert len(decoder.generate([3], limit, torch.Generator()).tokens) == limit


def test_a_text_may_fill_the_models_positions():
    model = toy(1, max_position_embeddings=24)
    for decoder in decoders(model, 5, 0.0, NEVER):
        assert len(decoder.generate([1] * 4, 20, torch.Generator()).tokens) == 20
        with pytest.raises(ValueError, match="need 25 positions, the model has 24"):
            decoder.generate([1] * 5, 20, torch.Generator())


def test_a_seed_gives_one_text():
    for decoder in decoders(toy(1), 3, 1.0, NEVER):
        first, again, other = (decoder.generate([1, 2], 20, torch.Generator().manual_seed(s)).tokens for s in (0, 0, 1))
        assert first == again != other


def test_bad_input_is_one_clear_error():
    target, draft = Engine(toy(1)), Engine(toy(2))
    good = Speculative(target, draft, 2, 0.0, 1.0, NEVER)
    with pytest.raises(ValueError, match="0 tokens"):
        good.generate([], 4, torch.Generator())
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        good.generate([1], 0, torch.Generator())
    with pytest.raises(ValueError, match="n=0"):
        Speculative(target, draft, 0, 0.0, 1.0, NEVER)
    with pytest.raises(ValueError, match="match=0"):
        PromptLookup(target, 2, 0, 0.0, 1.0, NEVER)
    with pytest.raises(ValueError, match="draft is the target"):
        Speculative(target, target, 2, 0.0, 1.0, NEVER)
    with pytest.raises(ValueError, match="vocabulary of 80, the target of 64"):
        Speculative(target, Engine(toy(0, vocab_size=80)), 2, 0.0, 1.0, NEVER)
    with pytest.raises(ValueError, match="top_p=1.5"):
        Autoregressive(target, 1.0, 1.5, NEVER)


class Table:
    """An engine whose next token depends on the last two by a fixed table: its law is known in closed form."""

    vocab, device = 5, torch.device("cpu")

    def __init__(self, seed, sharpness=1.5):
        noise = torch.randn(5, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.logits_VVV, self.text = sharpness * noise, []

    @property
    def length(self):
        return len(self.text)

    def begin(self, needed):
        self.text = []

    def rollback(self, length):
        assert length <= len(self.text)
        self.text = self.text[:length]

    def forward(self, ids_T, tail=None):
        start = len(self.text)
        self.text = self.text + ids_T.tolist()
        rows = [self.logits_VVV[tuple(([0] + self.text[: end + 1])[-2:])] for end in range(start, len(self.text))]
        return torch.stack(rows[-tail:])


def chi_square_z(decoder, target, top_p, length, draws=6000):
    """How many standard deviations the first `length` sampled tokens lie from the target's law (Wilson-Hilferty)."""
    counts = dict.fromkeys(itertools.product(range(5), repeat=length), 0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(draws):
        counts[tuple(decoder.generate([1, 2, 1], length, generator).tokens)] += 1
    law = {}
    for text in counts:
        context, law[text] = (2, 1, *text), 1.0
        for position, token in enumerate(text):
            law[text] *= float(warp(target.logits_VVV[context[position : position + 2]], 1.0, top_p)[token])
    return _z(counts, law, draws)


def _z(counts, law, draws):
    large = [text for text in law if law[text] * draws >= 5]
    if any(counts[text] for text in law if law[text] == 0):
        return float("inf")
    cells = [(counts[text], law[text] * draws) for text in large]
    cells.append((draws - sum(count for count, _ in cells), draws - sum(mean for _, mean in cells)))
    total = sum((count - mean) ** 2 / mean for count, mean in cells if mean >= 5)
    freedom = len([mean for _, mean in cells if mean >= 5]) - 1
    return ((total / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / (2 / (9 * freedom)) ** 0.5


@pytest.mark.parametrize("n, top_p", [(1, 1.0), (2, 0.8), (3, 0.8)])
def test_speculation_has_the_targets_law(n, top_p):
    target = Table(1)
    decoder = Speculative(target, Table(2), n, 1.0, top_p, NEVER)
    assert abs(chi_square_z(decoder, target, top_p, min(n, 2) + 2)) < 4


def test_lookup_has_the_targets_law():
    target = Table(1)
    assert abs(chi_square_z(PromptLookup(target, 2, 2, 1.0, 0.8, NEVER), target, 0.8, 4)) < 4


class ToldTheUnwarped(Speculative):
    """Planted bug: top-p on the draft's draws, but not in the q that the rule is told."""

    def propose(self, sequence, count, generator):
        drafted, _ = super().propose(sequence, count, generator)
        context = [*sequence, *drafted]
        starts = range(len(sequence) - 2, len(context) - 2)
        rows = [self.draft.logits_VVV[tuple(context[start : start + 2])].softmax(-1) for start in starts]
        return drafted, torch.stack(rows) if rows else None


class ToldTheNeighbours(Speculative):
    """Planted bug: each drafted token comes with the distribution of the token beside it."""

    def propose(self, sequence, count, generator):
        drafted, q_nV = super().propose(sequence, count, generator)
        return drafted, None if q_nV is None else q_nV.roll(1, 0)


@pytest.mark.parametrize("bug", [ToldTheUnwarped, ToldTheNeighbours])
def test_a_planted_bug_is_seen_in_the_output(bug):
    target = Table(1)
    assert chi_square_z(bug(target, Table(2), 2, 1.0, 0.8, NEVER), target, 0.8, 4) > 6


def test_nucleus_of_the_toy_cuts_tokens():
    """The law above is one of top-p only if top-p does something."""
    rows = nucleus(Table(1).logits_VVV.softmax(-1), 0.8)
    assert (rows == 0).any()
