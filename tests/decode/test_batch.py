"""Texts that are decoded together: each is what it is alone, and one forward reads for all."""

import pytest
import torch

from soaes.decode.adaptive import BlockCosts
from soaes.decode.autoregressive import Autoregressive
from soaes.decode.base import Rule
from soaes.decode.batch import Request, generate_all
from soaes.decode.engine import Engine
from soaes.decode.graphs import GraphedEngine
from soaes.decode.prompt_lookup import PromptLookup
from soaes.decode.settings import (
    AutoregressiveSettings,
    PromptLookupSettings,
    SpeculativeSettings,
    speculation_spec,
)
from soaes.decode.speculative import Speculative
from soaes.decode.verify import REJECTION, rejection
from tests.helpers.families import family
from tests.helpers.laws import DRAWS, LEVEL, Table, p_value, speculative
from tests.helpers.toys import near, toy

NEVER = -1
DECODERS = ["plain", "draft", "lookup"]


def decoder(name, model, eos=NEVER, temperature=0.0, engine=Engine):
    target = engine(model)
    if name == "plain":
        return Autoregressive(target, temperature, 1.0, eos)
    if name == "lookup":
        return PromptLookup(target, 3, 2, temperature, 1.0, eos)
    return Speculative(target, engine(near(model, 0.02)), 3, temperature, 1.0, eos)


def tables(name, target=Table, rule=REJECTION, eos=0):
    """A decoder over tables, whose logits do not depend on what is read beside."""
    if name == "plain":
        return Autoregressive(target(1), 1.0, 0.9, eos)
    if name == "lookup":
        return PromptLookup(target(1), 2, 2, 1.0, 0.9, eos, rule)
    return speculative(2, rule, target=target, eos=eos)


def requests(lengths=(12, 1, 30, 5, 7), vocabulary=64, limit=24):
    """Prompts of several lengths and limits, each with its own seed."""
    made = []
    for seed, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(seed)
        prompt = torch.randint(vocabulary, (length,), generator=generator).tolist()
        made.append(Request(prompt, limit - seed, generator.manual_seed(seed)))
    return made


def alone(method, asked):
    return [method.generate(*request) for request in asked]


def is_as_alone(method, reference, batch, **asked):
    """Whether each text and all of its counts are those of its decoding alone."""
    together = generate_all(method, requests(**asked), batch)
    return together == alone(reference, requests(**asked))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("of", ["Qwen2", "Qwen3", "Llama-3"])
def test_greedy_texts_are_those_of_each_prompt_alone(name, of):
    model = family(of)
    end = decoder("plain", model).generate(*requests()[0]).tokens[6]
    method = decoder(name, model, eos=end)
    texts = alone(method, requests())
    assert len({len(text.tokens) for text in texts}) > 2, "some end early, and at several lengths"
    for batch in (2, 5):
        assert generate_all(method, requests(), batch) == texts


@pytest.mark.parametrize("name", DECODERS)
def test_sampled_texts_are_those_of_each_prompt_alone(name):
    for batch in (1, 3, 8):
        assert is_as_alone(tables(name), tables(name), batch, lengths=[5] * 8, vocabulary=3)


def test_a_text_in_a_batch_has_the_targets_law():
    assert p_value(tables("draft"), 4, DRAWS, eos=0, batch=3) > LEVEL


class Counting(Engine):
    """Notes how many texts each forward reads for."""

    def __init__(self, model):
        super().__init__(model)
        self.widths = []

    def forward_together(self, forwards):
        self.widths.append(len(forwards))
        return super().forward_together(forwards)


def test_one_forward_reads_for_all_texts_and_the_next_prompt_takes_a_free_place():
    asked = [Request([3, 4, 5], limit, torch.Generator()) for limit in (4, 9, 4, 5, 3)]
    method = decoder("plain", toy(1), engine=Counting)
    assert generate_all(method, asked, 2) == alone(method, asked)
    # places take 4 + 4 + 5 and 9 + 3 tokens; the last step of the longer is alone
    assert method.target.widths[:13] == [2] * 12 + [1]


def test_the_target_waits_until_every_text_has_its_drafts():
    asked = [Request([3, 4, 5], 1 + limit, torch.Generator()) for limit in (12, 12, 2)]
    method = decoder("draft", toy(1), engine=Counting)
    generations = generate_all(method, asked, 3)
    assert len(method.target.widths) == max(generation.steps for generation in generations)
    assert method.target.widths[0] == 3 and set(method.draft.widths[:2]) == {3}


# ---------------------------------------------------------------- planted bugs


class CacheOffByOne(Engine):
    """All texts but the first go on one position late after their prompts."""

    is_beside = False

    def beside(self):
        other = super().beside()
        other.is_beside = True
        return other

    def _window(self, count):
        window = super()._window(count)
        if self.length == 0 or not self.is_beside:
            return window
        late = slice(self.length + 1, window.end + 1)
        return window._replace(cos_T1D=self.cos_L1D[late], sin_T1D=self.sin_L1D[late])


class LogitsOfAnother(Table):
    """Each text gets the logits of the text before it."""

    def forward_together(self, forwards):
        logits = super().forward_together(forwards)
        same_shape = len({len(logits_TV) for logits_TV in logits}) == 1
        return [logits[-1], *logits[:-1]] if same_shape else logits


class TestOfAnother:
    """A rule that judges each block by the acceptance test of the block before it: in a batch, that
    of another text.
    """

    __test__ = False

    def __init__(self):
        self.last = None
        self.rule = Rule("of another", exact=True, test=self.test)

    def test(self, p_rows, q_rows, drafted):
        test = rejection(p_rows, q_rows, drafted)
        before, self.last = self.last, test
        if before is None or len(before.accept_probs) != len(drafted):
            return test
        return test._replace(accept_probs=before.accept_probs)


def test_a_cache_that_is_off_by_one_is_found():
    model = toy(1)
    wrong, right = decoder("draft", model, engine=CacheOffByOne), decoder("draft", model)
    assert is_as_alone(wrong, right, batch=1), "alone nothing is wrong"
    assert not is_as_alone(wrong, right, batch=2)


def test_a_generator_that_texts_share_is_found():
    generator = torch.Generator().manual_seed(0)
    shared = [request._replace(generator=generator) for request in requests([5] * 4, 3)]
    texts = generate_all(tables("draft"), shared, 2)
    assert texts != alone(tables("draft"), requests([5] * 4, 3))


def test_logits_of_another_text_are_found():
    wrong, right = tables("draft", target=LogitsOfAnother), tables("draft")
    asked = dict(lengths=[5] * 8, vocabulary=3)
    assert is_as_alone(wrong, right, batch=1, **asked), "alone nothing is wrong"
    assert not is_as_alone(wrong, right, batch=2, **asked)


def test_acceptance_of_another_text_fails_the_chi_square():
    wrong = tables("draft", rule=TestOfAnother().rule, eos=NEVER)
    assert p_value(wrong, 4, DRAWS, batch=2) < LEVEL


# ---------------------------------------------------------------- what is refused


def test_what_has_no_batches_is_refused_by_name():
    target, draft = Engine(toy(1)), Engine(toy(2))
    costs = BlockCosts(0.1, [1.0, 1.2, 1.2])
    adaptive = Speculative(target, draft, 2, 0.0, 1.0, NEVER, adaptive=costs)
    assert len(generate_all(adaptive, requests(), 1)) == 5
    with pytest.raises(ValueError, match="adaptive=true: the costs .* batch=1"):
        generate_all(adaptive, requests(), 2)
    with pytest.raises(ValueError, match="CUDA graphs read one sequence; set batch=1"):
        generate_all(decoder("plain", toy(1), engine=GraphedEngine), requests(), 2)
    with pytest.raises(ValueError, match="batch=2: vllm is timed one text at a time"):
        speculation_spec(SpeculativeSettings(n=3, batch=2), "vllm")


@pytest.mark.parametrize("batch", [0, 9, 1.5, True], ids=str)
def test_a_batch_is_one_to_eight_texts(batch):
    for settings in (
        lambda: AutoregressiveSettings(batch=batch),
        lambda: SpeculativeSettings(n=3, batch=batch),
        lambda: PromptLookupSettings(n=3, max_ngram=2, batch=batch),
    ):
        with pytest.raises(ValueError, match=f"batch={batch}: must"):
            settings()


def test_an_adaptive_n_is_one_texts():
    with pytest.raises(ValueError, match="batch=2: adaptive=true chooses n by the costs of one"):
        SpeculativeSettings(n=3, adaptive=True, batch=2)
