"""Two measurements of exactness, and a third for drafts.

Every rule and decoder must pass them and every planted bug must fail one.

- `error`: the largest error of the distribution of one block, extended by the target to n + 1
  tokens, enumerated over tables that depend on the prefix;
- `p_value`: chi-square of the joint distribution of the first tokens that a decoder writes;
- `wasted`: what a draft that is the target's twin loses.
"""

import itertools
from copy import copy

import torch

from soaes.decode.batch import Request, generate_all
from soaes.decode.engine import Engine
from soaes.decode.prompt_lookup import PromptLookup
from soaes.decode.sampling import warp
from soaes.decode.speculative import Speculative
from soaes.decode.verify import BLOCK, REJECTION, TOKEN_MATCH
from tests.helpers.toys import toy

EXACT = {rule.name: rule for rule in (REJECTION, BLOCK, TOKEN_MATCH)}
FAMILY = 1e-3  # chance that a correct program fails any of the chi-square tests
# what each p-value must stay above (Bonferroni: 16 tests of the suite and 36 nightly ones)
LEVEL = FAMILY / 60
DRAWS, MANY_DRAWS = 1000, 20_000  # of the suite; of the nightly tests
NEVER = -1  # an eos that no model emits
PROMPT = [1, 2, 1, 1, 2]


# ---------------------------------------------------------------- by enumeration
# p[i], q[i] have the shape [V] * i + [V], for prefixes of i tokens


def pairs(count=168):
    """Random pairs of conditional tables, and n, over vocabularies of 2 to 5 tokens.

    Each pair is of one of a few kinds. Every kind, vocabulary and n meet once in 84 pairs.
    """
    generator = torch.Generator().manual_seed(0)
    kinds = ["random", "skewed", "zeros", "near", "equal", "disjoint", "one_hot"]
    for index in range(count):
        vocabulary, n = 2 + index % 4, 1 + index // 4 % 3
        yield (
            *zip(*(_pair(kinds[index % 7], vocabulary, size, generator) for size in range(n + 1))),
            n,
        )


def _pair(kind, vocabulary, size, generator):
    p, q = torch.rand(2, *[vocabulary] * (size + 1), generator=generator, dtype=torch.float64)
    first = torch.rand(p.shape, generator=generator).argsort(-1) == 0  # one token of each row
    changed = {
        "skewed": (p**8, q**8),
        "zeros": (p * ~first, q * ~first.roll(1, -1)),
        "near": (p, p * (1 + 1e-9 * q)),
        "equal": (p, p.clone()),
        "disjoint": (p * first, q * ~first),
        "one_hot": (p, first.double()),
    }
    p, q = changed.get(kind, (p, q))
    return p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)


def _rows(table, drafted):
    return torch.stack(
        [rows[tuple(drafted[:size])] for size, rows in enumerate(table[: len(drafted) + 1])]
    )


def blocks(test, p, q, n, claimed=None):
    """(chance, drafted, accepted, what follows_V) of everything a block can come to.

    test: a rule's acceptance test. claimed: the q that the rule is given, where it is not the q
    that drafts.
    """
    for drafted in itertools.product(range(p[0].shape[-1]), repeat=n):
        chance = float(_rows(q[:n], drafted)[range(n), list(drafted)].prod())
        if chance == 0:
            continue
        outcome = test(_rows(p, drafted), _rows((claimed or q)[:n], drafted), list(drafted))
        arrived = [0.0] * (n + 1)
        for passed in itertools.product([False, True], repeat=n):
            weight = 1.0
            for is_passed, probability in zip(passed, outcome.accept_probs):
                weight *= probability if is_passed else 1 - probability
            arrived[outcome.count(list(passed))] += weight
        for accepted, weight in enumerate(arrived):
            if weight > 0:
                yield chance * weight, drafted, accepted, outcome.next_probs(accepted)


def error(test, p, q, n, claimed=None):
    """Largest error of the probability of n + 1 tokens.

    Written by a block, then by the target alone where the block was shorter.
    """
    # [i]: texts that a block ended at i + 1 tokens
    written = [torch.zeros_like(rows) for rows in p]
    for chance, drafted, accepted, following in blocks(test, p, q, n, claimed):
        written[accepted][drafted[:accepted]] += chance * following
    emitted = target = torch.ones((), dtype=torch.float64)
    for rows, ended in zip(p, written):
        emitted, target = emitted[..., None] * rows + ended, target[..., None] * rows
        if rows is p[0]:
            emitted = ended
    return float((emitted - target).abs().max())


def tokens_a_block(rule, p, q, n):
    """Expected tokens of a block, by enumeration."""
    return sum(chance * (accepted + 1) for chance, _, accepted, _ in blocks(rule.test, p, q, n))


# ---------------------------------------------------------------- through the whole decoder


class Table:
    """An engine whose next token depends on the last two and on whether its position is odd.

    Its distribution is known in closed form.
    """

    device, num_weights = torch.device("cpu"), 0

    def __init__(self, seed, vocabulary=3, sharpness=1.5):
        self.vocab, self.length, self.cells = vocabulary, 0, []
        noise = torch.randn(
            2, *[vocabulary] * 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        self.logits_2VVV = sharpness * noise

    def beside(self):
        other = copy(self)
        other.length = 0  # `begin` makes its cells
        return other

    def shares_weights(self, other):
        return self.logits_2VVV is other.logits_2VVV

    def begin(self, needed):
        self.length, self.cells = 0, [0] * needed

    def rollback(self, length):
        assert length <= self.length
        self.length = length

    def forward(self, ids_T, tail=None):
        start, self.length = self.length, self.length + len(ids_T)
        self.cells[start : self.length] = ids_T.tolist()
        return torch.stack(
            [self.row(self.cells[: end + 1]) for end in range(start, self.length)][-tail:]
        )

    def forward_together(self, forwards):
        return [engine.forward(ids_T, tail) for engine, ids_T, tail in forwards]

    def row(self, text):
        return self.logits_2VVV[len(text) % 2, ([0] + text)[-2], text[-1]]


def p_value(decoder, length, draws, eos=NEVER, batch=None):
    """Chance of a chi-square as large as that of some draws, if they had the target's distribution.

    Of the joint distribution of the first `length` tokens.

    Tokens after eos count as eos. Cells of less than 5 expected draws are one cell. batch: texts
    that are decoded together, each by its own seed; None: one by one, by one generator.
    """
    size = decoder.target.vocab
    law, counts = _law(decoder, length, eos), torch.zeros([size] * length, dtype=torch.float64)
    for generation in _generations(decoder, length, draws, batch):
        tokens = generation.tokens
        counts[tuple(tokens + [eos] * (length - len(tokens)))] += 1
    if counts[law == 0].any():
        return 0.0
    large = law * draws >= 5
    cells = torch.cat(
        [
            torch.stack([counts[large], draws * law[large]]),
            torch.stack([counts[~large].sum(), draws * law[~large].sum()])[:, None],
        ],
        1,
    )
    seen, mean = cells[:, cells[1] > 0]
    return float(
        torch.special.gammaincc(
            torch.tensor((len(mean) - 1) / 2, dtype=torch.float64),
            ((seen - mean) ** 2 / mean).sum() / 2,
        )
    )


def _generations(decoder, length, draws, batch):
    if batch is None:
        generator = torch.Generator().manual_seed(0)
        return [decoder.generate(PROMPT, length, generator) for _ in range(draws)]
    generators = [torch.Generator().manual_seed(seed) for seed in range(draws)]
    requests = [Request(PROMPT, length, generator) for generator in generators]
    return generate_all(decoder, requests, batch)


def _law(decoder, length, eos):
    target, size = decoder.target, decoder.target.vocab
    law = torch.zeros([size] * length, dtype=torch.float64)
    for text in itertools.product(range(size), repeat=length):
        chance = 1.0
        for position, token in enumerate(text):
            ended = eos in text[:position]
            row = target.row([*PROMPT, *text[:position]])
            chance *= (
                float(token == eos)
                if ended
                else float(warp(row, decoder.temperature, decoder.top_p)[token])
            )
        law[text] = chance
    return law


def wasted(decoder):
    """Drafted tokens that a few texts did not accept: none of a draft that is the target's twin."""
    generator = torch.Generator().manual_seed(0)
    generations = [decoder.generate(PROMPT, 13, generator) for _ in range(20)]
    assert all(len(generation.tokens) == 13 for generation in generations)
    return sum(generation.drafted - generation.accepted for generation in generations)


# ---------------------------------------------------------------- decoders on tables
# the draft is another table, or the target's twin


def speculative(
    n,
    rule=REJECTION,
    of=Speculative,
    target=Table,
    eos=NEVER,
    temperature=1.0,
    top_p=0.9,
    **options,
):
    return of(target(1), Table(2), n, temperature, top_p, eos, rule, **options)


def prompt_lookup(n, rule=REJECTION, eos=NEVER, **options):
    return PromptLookup(Table(1), n, 2, 1.0, 0.9, eos, rule, **options)


def twins(n, rule=REJECTION, of=Speculative, draft=Table):
    return of(Table(1), draft(1), n, 1.0, 0.9, NEVER, rule)


def real_twins(n, of=Speculative):
    return of(Engine(toy(1)), Engine(toy(1)), n, 1.0, 0.9, NEVER)
