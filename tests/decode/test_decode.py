"""Decoders on toys: the engine is the model, and greedy output is the target's own."""

import itertools
from functools import partial

import pytest
import torch

from soaes.decode import engine
from soaes.decode.adaptive import CAP, SHARE, Adaptive, BlockCosts
from soaes.decode.autoregressive import Autoregressive
from soaes.decode.engine import Engine
from soaes.decode.prompt_lookup import PromptLookup, lookup
from soaes.decode.speculative import Speculative
from soaes.model import generate as answering
from soaes.model.generate import generate, generate_answers
from tests.helpers.families import family
from tests.helpers.toys import near, toy

NEVER = -1  # an eos that no model emits


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
    ids=["plain", "tied head", "every head its own keys", "one key head", "linear rope"],
)
def test_engine_is_the_model_however_the_text_arrives(changes):
    model, text = toy(1, **changes), ids(40)
    engine, expected = Engine(model), reference(model, text)
    engine.begin(40)
    pieces = [engine.forward(piece) for piece in text.split([10, 1, 1, 4, 7, 1, 16])]
    assert torch.allclose(torch.cat(pieces), expected, atol=1e-4)
    engine.rollback(0)
    assert torch.allclose(engine.forward(text, tail=3), expected[-3:], atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", ["Qwen2", "Qwen2, tied", "Qwen2, YaRN", "Qwen3", "Llama-3"])
def test_engine_is_every_family_that_it_takes(name, dtype):
    """In bfloat16 as near to float32 as transformers' own forward comes."""
    text = ids(40)
    exact = reference(family(name), text)
    model = family(name).to(dtype)
    own_error = (reference(model, text).float() - exact).abs().mean()
    engine = Engine(model)
    engine.begin(40)
    pieces = [engine.forward(piece) for piece in text.split([10, 1, 1, 4, 7, 1, 16])]
    error = (torch.cat(pieces).float() - exact).abs().mean()
    assert error < (1e-4 if dtype is torch.float32 else 1.3 * own_error)


@pytest.mark.parametrize("draft", ["Qwen2", "Qwen3"])
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_two_families_decode_as_a_pair(draft, temperature):
    target, prompt = Engine(family("Llama-3")), ids(12).tolist()
    speculative = Speculative(target, Engine(family(draft, seed=1)), 3, temperature, 1.0, NEVER)
    generation = speculative.generate(prompt, 30, torch.Generator().manual_seed(0))
    assert len(generation.tokens) == 30 and generation.drafted > 0
    if temperature == 0:
        plain = Autoregressive(target, 0.0, 1.0, NEVER)
        assert generation.tokens == plain.generate(prompt, 30, torch.Generator()).tokens


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


@pytest.mark.parametrize("keys", [1, 2, 4])
def test_a_block_on_a_gpu_attends_as_on_a_processor(keys):
    """By queries grouped to their key head, as a GPU's kernel with a mask wants them."""
    q_TQD, kv = torch.randn(3, 4, 8), torch.randn(2, 1, keys, 9, 8)
    mask_TL = torch.zeros(3, 9).masked_fill(~torch.ones(3, 9, dtype=bool).tril(6), -torch.inf)
    expected = engine._attention(q_TQD, *kv, mask_TL)
    torch.testing.assert_close(engine._masked_attention(q_TQD, *kv, mask_TL), expected)


def test_engine_refuses_what_it_would_get_wrong():
    with pytest.raises(ValueError, match="sliding_attention"):
        Engine(toy(0, use_sliding_window=True, sliding_window=4, max_window_layers=1))
    with pytest.raises(ValueError, match="model type 'glm4'"):
        Engine(family("GLM-4"))
    biased = family("Qwen3")
    biased.config.attention_bias = True
    with pytest.raises(ValueError, match="attention_bias=true: our own decoding has no bias"):
        Engine(biased)
    with pytest.raises(ValueError, match="513 positions, the model has 512"):
        Engine(toy(0)).begin(513)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_greedy_speculation_is_the_target_token_for_token(noise, n):
    for seed in (1, 2):
        model = toy(seed)
        target, draft, prompt = (
            Engine(model),
            Engine(near(model, noise, seed)),
            ids(5 + n, seed).tolist(),
        )
        plain = Autoregressive(target, 0.0, 1.0, NEVER).generate(prompt, 40, torch.Generator())
        fast = Speculative(target, draft, n, 0.0, 1.0, NEVER).generate(
            prompt, 40, torch.Generator()
        )
        assert fast.tokens == plain.tokens and plain.steps == 40
        assert fast.accepted + fast.steps == 40 and fast.drafted == sum(fast.tests_per_position)
        # the draft is the target's twin: every block is accepted whole, so its cache lost no token
        if noise == 0:
            assert (
                fast.steps == -(-40 // (n + 1))
                and fast.accepts_per_position == fast.tests_per_position
            )


@pytest.mark.parametrize("n, match", [(1, 1), (3, 2), (5, 3)])
def test_greedy_lookup_is_the_target_token_for_token(n, match):
    for seed in range(4):
        target, prompt = Engine(toy(seed)), ids(12, seed).tolist() * 2
        plain = Autoregressive(target, 0.0, 1.0, NEVER).generate(prompt, 60, torch.Generator())
        fast = PromptLookup(target, n, match, 0.0, 1.0, NEVER).generate(
            prompt, 60, torch.Generator()
        )
        assert fast.tokens == plain.tokens and fast.drafted > 0 and fast.accepted + fast.steps == 60


def test_lookup_takes_the_longest_match_and_the_latest():
    assert lookup([7, 8, 9, 1, 8, 2, 7, 8], 2, 3) == ([9, 1, 8], 2)
    assert lookup([7, 8, 9, 1, 8, 2, 7, 8], 1, 3) == ([2, 7, 8], 1)
    assert lookup([5, 6, 5, 4, 5], 3, 9) == ([4, 5], 1)
    assert lookup([3, 3, 3], 2, 4) == ([3], 2)
    assert lookup([1, 2, 3], 3, 4) == lookup([1], 3, 4) == ([], 0) and lookup([1, 1], 1, 0) == (
        [],
        1,
    )


def decoders(model, n, temperature, eos, noise=0.05):
    target, draft = Engine(model), Engine(near(model, noise))
    for adaptive in (False, BlockCosts(0.1, [1.0] + [1.1] * n)):
        yield Speculative(target, draft, n, temperature, 0.9, eos, adaptive=adaptive)
        yield PromptLookup(target, n, 2, temperature, 0.9, eos, adaptive=adaptive)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_eos_ends_the_text_wherever_it_stands_in_a_block(temperature):
    model, prompt = toy(1), ids(6).tolist() * 2
    plain = (
        Autoregressive(Engine(model), 0.0, 1.0, NEVER)
        .generate(prompt, 30, torch.Generator())
        .tokens
    )
    ended = 0
    for eos, n in itertools.product(dict.fromkeys(plain[:9]), (1, 3, 4)):
        for decoder in decoders(model, n, temperature, eos):
            tokens = decoder.generate(prompt, 30, torch.Generator().manual_seed(n)).tokens
            assert eos not in tokens[:-1] and (tokens[-1] == eos or len(tokens) == 30)
            ended += tokens[-1] == eos
            assert temperature or tokens == plain[: plain.index(eos) + 1]
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
        first, again, other = (
            decoder.generate([1, 2], 20, torch.Generator().manual_seed(s)).tokens for s in (0, 0, 1)
        )
        assert first != other and (
            decoder.adaptive or first == again
        )  # what was learnt from one text changes the draws of the next


@pytest.mark.parametrize(
    "adaptive",
    [True, BlockCosts(0.2, [1.0, 1.1, 1.2, 1.3, 1.4]), BlockCosts(5.0, [1.0, 9.0, 9.0, 9.0, 9.0])],
    ids=["timed", "cheap", "dear"],
)
def test_adaptive_greedy_text_is_the_targets_whatever_the_costs(adaptive):
    model, prompt = toy(1), ids(12).tolist() * 2
    target = Engine(model)
    plain = Autoregressive(target, 0.0, 1.0, NEVER).generate(prompt, 60, torch.Generator())
    for noise in (0.0, 0.1, 1.0):
        fast = Speculative(
            target, Engine(near(model, noise)), 4, 0.0, 1.0, NEVER, adaptive=adaptive
        )
        assert [fast.generate(prompt, 60, torch.Generator()).tokens for _ in range(2)] == [
            plain.tokens
        ] * 2
    assert (
        PromptLookup(target, 4, 3, 0.0, 1.0, NEVER, adaptive=adaptive)
        .generate(prompt, 60, torch.Generator())
        .tokens
        == plain.tokens
    )


def simulated(adaptive, rate, blocks):
    """Tokens, their price in steps, and the n of each block.

    Each drafted token is right with probability `rate`.
    """
    tokens, price, chosen = 0, 0.0, []
    for right in (
        torch.rand(blocks, 5, generator=torch.Generator().manual_seed(0)) < rate
    ).tolist():
        n = adaptive.choose()
        accepted = [*right[:n], False].index(False)
        adaptive.learn(n, accepted)
        tokens, price = tokens + accepted + 1, price + adaptive.prices[n]
        chosen.append(n)
    return tokens, price, chosen


COSTS = BlockCosts(0.1, [1.0, 1.2, 1.22, 1.24, 1.26, 1.28])


@pytest.mark.parametrize(
    "costs",
    [COSTS, BlockCosts(0.5, COSTS.verify), BlockCosts(0.01, [1.0, 1.5, 2.0, 2.5, 3.0, 3.5])],
    ids=["usual", "dear draft", "dear verification"],
)
def test_drafts_that_all_fail_cost_less_than_three_per_cent(costs):
    tokens, price, chosen = simulated(Adaptive(5, costs), 0.0, 200)
    assert (
        price < 1.03 * tokens and 0 < sum(n > 0 for n in chosen[100:]) < 10
    )  # it never stops trying


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_adaptive_comes_near_the_best_fixed_n(rate):
    adaptive = Adaptive(5, COSTS)
    best = max(
        sum(rate**i for i in range(n + 1)) / price for n, price in enumerate(adaptive.prices)
    )
    tokens, price, chosen = simulated(adaptive, rate, 4000)
    assert tokens / price > 0.97 * best and (rate < 1 or chosen[-1] == 5)


def test_adaptive_follows_a_change_of_subject():
    adaptive = Adaptive(5, COSTS)
    simulated(adaptive, 0.9, 200)
    tokens, price, chosen = simulated(adaptive, 0.0, 300)
    assert price - tokens < CAP * adaptive.worst_loss + SHARE * 300 and sum(chosen[100:]) < 20
    _, _, chosen = simulated(adaptive, 0.9, 300)
    assert sum(chosen[-100:]) > 300


def test_each_length_of_match_has_its_own_estimate():
    adaptive = Adaptive(3, BlockCosts(0.0, [1.0, 1.3, 1.4, 1.5]))
    chosen = {1: [], 3: []}
    for size in [1, 3] * 60:
        chosen[size].append(adaptive.choose(size))
        adaptive.learn(chosen[size][-1], accepted=chosen[size][-1] if size == 3 else 0)
    assert set(chosen[3][-30:]) == {3} and sum(chosen[1][-30:]) <= 1


def test_bad_input_is_one_clear_error():
    target, draft = Engine(toy(1)), Engine(toy(2))
    good = Speculative(target, draft, 2, 0.0, 1.0, NEVER)
    with pytest.raises(ValueError, match="0 tokens"):
        good.generate([], 4, torch.Generator())
    with pytest.raises(ValueError, match="max_new_tokens=0"):
        good.generate([1], 0, torch.Generator())
    with pytest.raises(ValueError, match="n=0"):
        Speculative(target, draft, 0, 0.0, 1.0, NEVER)
    with pytest.raises(ValueError, match="max_ngram=0"):
        PromptLookup(target, 2, 0, 0.0, 1.0, NEVER)
    with pytest.raises(ValueError, match="draft is the target"):
        Speculative(target, target, 2, 0.0, 1.0, NEVER)
    with pytest.raises(ValueError, match="vocabulary of 80, the target of 64"):
        Speculative(target, Engine(toy(0, vocab_size=80)), 2, 0.0, 1.0, NEVER)
    with pytest.raises(ValueError, match="need 513 positions, the model has 512"):
        good.generate([1] * 500, 13, torch.Generator())
    with pytest.raises(ValueError, match="3 costs of verification with n=3: give n"):
        PromptLookup(target, 3, 1, 0.0, 1.0, NEVER, adaptive=BlockCosts(0.1, [1.0, 1.2, 1.3]))
    for temperature, top_p, words in (
        (1.0, 1.5, "top_p=1.5"),
        (1.0, 0.0, "top_p=0"),
        (-0.5, 1.0, "temperature=-0.5"),
    ):
        for decoder in (
            partial(Autoregressive, target),
            partial(Speculative, target, draft, 2),
            partial(PromptLookup, target, 2, 2),
        ):
            with pytest.raises(ValueError, match=words):
                decoder(temperature, top_p, NEVER)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("broken", ["target", "draft"])
def test_logits_that_are_not_numbers_are_an_error_of_either_model(temperature, broken):
    models = {"target": toy(1), "draft": toy(2)}
    models[broken].lm_head.weight.data[5] = float("nan")
    decoder = Speculative(
        **{name: Engine(model) for name, model in models.items()},
        n=2,
        temperature=temperature,
        top_p=0.9,
        eos=NEVER,
    )
    with pytest.raises(ValueError, match="NaN"):
        decoder.generate([1, 2], 9, torch.Generator())


class Words:
    """A tokenizer whose words are numbers."""

    def __init__(self, end):
        self.end = end

    def token_to_id(self, text):
        return self.end

    def decode(self, tokens):
        return " ".join(map(str, tokens))


@pytest.mark.parametrize("cached", [1, 100, 8192])  # one prompt at a time, a few, all
def test_answers_are_what_each_prompt_gets_alone(monkeypatch, cached):
    monkeypatch.setattr(answering, "MAX_CACHED_TOKENS", cached)
    model, generator = toy(3), torch.Generator()
    prompts = [ids(count, count).tolist() for count in (5, 40, 1, 9, 9, 33)]
    free = Autoregressive(Engine(model), 0.0, 1.0, eos=NEVER)
    end = free.generate(prompts[0], 12, generator).tokens[
        4
    ]  # so that one answer is over before its time, and others are not
    alone = [
        Autoregressive(Engine(model), 0.0, 1.0, eos=end).generate(prompt, 12, generator).tokens
        for prompt in prompts
    ]
    assert len({len(tokens) for tokens in alone}) > 1
    assert generate(model, Words(end), prompts, 12) == [
        Words(end).decode([token for token in tokens if token != end]) for tokens in alone
    ]
    cut = [answer.is_cut for answer in generate_answers(model, Words(end), prompts, 12)]
    assert cut == [end not in tokens for tokens in alone] and len(set(cut)) == 2


def test_answers_in_the_middle_of_training_leave_the_model_as_it_was():
    model = toy(3)
    model.set_attn_implementation("documents")
    model.model.compile(dynamic=False)
    torch._dynamo.utils.counters.clear()
    assert generate(model, Words(NEVER), [[1, 2, 3]], 4) == generate(
        toy(3), Words(NEVER), [[1, 2, 3]], 4
    )
    assert not torch._dynamo.utils.counters["frames"], (
        "every new shape of an answer would be compiled"
    )
    assert model.config._attn_implementation == "documents"
    assert generate(model, Words(NEVER), [], 4) == []
