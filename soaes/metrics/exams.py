"""Score multiple-choice exams with lm-evaluation-harness.

The score is the log-likelihood of the answer's letter (decision 12) or that of its text divided by
the text's characters (decision 24): a sum would pick the shortest option. The harness makes the
prompts from its own CMMLU and C-Eval templates and judges them; the questions come from memory, so
that it needs no network, no cache and no process of its own. Knows rows and a model, not folders or
recipes.

Shapes: B prompts, T tokens, D width, M last positions, A tokens of one answer, V vocabulary.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from statistics import mean
from typing import Any, NamedTuple, Protocol

import torch
import yaml
from datasets import Dataset, disable_progress_bars
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from transformers import PreTrainedModel

from soaes.data import chat, splits
from soaes.data.chat import AnyTokenizer
from soaes.data.records import LETTERS
from soaes.metrics import estimators
from soaes.pipeline import private_api

CHANCE = 25.0
SCORING_STAMPS = {
    "letter": "letter: log-likelihood (acc)",
    "text": "text: log-likelihood per character (acc_norm)",
}
TEMPLATES = {  # exam -> the harness's template, and what precedes a subject's name in its files
    "cmmlu": ("cmmlu/_default_template_yaml", "cmmlu/cmmlu_"),
    "ceval": ("ceval/_default_ceval_yaml", "ceval/ceval-valid_"),
}
# the newline keeps the answer a token of its own: "：《" is one
CLOZE = {
    "description": "",
    "doc_to_text": "{{question.strip()}}\n答案：\n",
    "doc_to_choice": "{{[A, B, C, D]}}",
    "target_delimiter": "",
}
private_api.cache_prompt_templates()

Row = Mapping[str, Any]  # a question, or an answered one
Exams = Mapping[str, Mapping[str, Sequence[Row]]]  # exam -> "dev" or "test" -> questions
Subject = tuple[str, str, list[Row], list[Row]]  # exam, subject, its dev and its test questions
Judgement = tuple[float, bool]  # log-likelihood of an answer in nats, whether it is the greedy one


class Asked(NamedTuple):
    """Answers that follow one prompt."""

    tokens: tuple[int, ...]  # to be read: the prompt, and the answers without their last tokens
    answers: list[list[int]]  # token ids of each; they differ in the last alone


class Judge(Protocol):
    """A causal model that tells how likely answers are."""

    positions: int
    """Tokens that it reads at once."""

    def __call__(self, asked: list[Asked]) -> list[list[Judgement]]:
        """Return the judgement of each answer."""
        ...


class ModelJudge:
    """A model of transformers.

    The harness's own wrapper takes the softmax of every position over the whole vocabulary and
    imports accelerate; an answer needs the last positions only.

    Args:
        model: the model.
        head: computes logits of final hidden states [T, D].
        batch: texts that are read at once.
    """

    def __init__(
        self, model: PreTrainedModel, head: Callable[[torch.Tensor], torch.Tensor], batch: int
    ) -> None:
        self.model, self.head, self.batch = model.eval(), head, batch
        self.positions: int = model.config.max_position_embeddings

    def __call__(self, asked: list[Asked]) -> list[list[Judgement]]:
        """See Judge."""
        order = sorted(range(len(asked)), key=lambda index: len(asked[index].tokens), reverse=True)
        judged: dict[int, list[Judgement]] = {}
        for start in range(0, len(order), self.batch):
            batch = order[start : start + self.batch]
            states = self._states([asked[index].tokens for index in batch])
            for index, states_TD in zip(batch, states, strict=True):
                judged[index] = self._judge(states_TD, asked[index].answers)
        return [judged[index] for index in range(len(asked))]

    @torch.inference_mode()
    def _states(self, batch: list[tuple[int, ...]]) -> list[torch.Tensor]:
        """Compute the final hidden states of each row.

        Padding stands right of the tokens, where a causal model does not look.
        """
        longest = max(map(len, batch))
        padded = [[*tokens, *[0] * (longest - len(tokens))] for tokens in batch]
        ids_BT = torch.tensor(padded, device=self.model.device)
        output = self.model.base_model(input_ids=ids_BT, use_cache=False)
        states_BTD = output.last_hidden_state
        return [states_BTD[row, : len(tokens)] for row, tokens in enumerate(batch)]

    @torch.inference_mode()
    def _judge(self, states_TD: torch.Tensor, answers: list[list[int]]) -> list[Judgement]:
        """Score answers that follow one prompt."""
        longest = max(map(len, answers))
        logits_MV = self.head(states_TD[-longest:])
        scores_MV = logits_MV.float().log_softmax(-1)
        judged = []
        for answer in answers:
            scores_AV = scores_MV[-len(answer) :]
            ids_A = torch.tensor(answer, device=scores_MV.device)
            greedy = bool((scores_AV.argmax(-1) == ids_A).all())
            judged.append((scores_AV.gather(1, ids_A[:, None]).sum().item(), greedy))
        return judged


class Reader(TemplateLM):
    """A causal model as the harness asks for it.

    Args:
        judge: the model.
        tokenizer: of the model.
    """

    backend = "causal"

    def __init__(self, judge: Judge, tokenizer: AnyTokenizer) -> None:
        super().__init__()
        self.judge_asked, self.tokenizer = judge, tokenizer
        self.text_start = chat.text_start(tokenizer)
        # the four letters of a question share its prompt
        self._encode = lru_cache(maxsize=8)(self._encode_text)

    @property
    def eot_token_id(self) -> int:
        """Not supported: no prompt is empty."""
        raise NotImplementedError

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **others: Any
    ) -> list[int]:
        """Encode a text without special tokens, whatever the harness asks for."""
        return self._encode(string)

    def _encode_text(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, **others: Any
    ) -> list[Judgement]:
        """Judge (text, prompt, answer) requests, in their order."""
        # tokens to read -> who asks: " A" .. " D" after one prompt are read once
        askers: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, (_text, prompt, answer) in enumerate(requests):
            askers[tuple(self.text_start + prompt + answer[:-1])].append(index)
        _check_length(list(askers), self.judge_asked.positions)
        asked = [
            Asked(tokens, [requests[index][2] for index in indices])
            for tokens, indices in askers.items()
        ]
        judged: dict[int, Judgement] = {}
        for indices, judgements in zip(askers.values(), self.judge_asked(asked), strict=True):
            judged |= zip(indices, judgements, strict=True)
        return [judged[index] for index in range(len(requests))]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[Judgement]:
        """Judge the harness's requests, without a progress bar in the log file.

        The harness itself would count white space at the prompt's end as a part of the answer. The
        newline in front of an option's text would then cost a short option more a character.
        """
        return self.judge([request.args for request in requests])

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
        """Judge answers, each given as (prompt, answer)."""
        return self._loglikelihood_tokens([(pair, *self._encode_answer(*pair)) for pair in pairs])

    def _encode_answer(self, prompt: str, answer: str) -> tuple[list[int], list[int]]:
        """Encode a prompt with an answer, and cut the tokens where the prompt alone ends."""
        prompt_ids = self.tok_encode(prompt)
        return prompt_ids, self.tok_encode(prompt + answer)[len(prompt_ids) :]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Not supported: no exam asks for it."""
        raise NotImplementedError

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Not supported: no exam asks for it."""
        raise NotImplementedError


class Answers(NamedTuple):
    """`schema.BenchmarkPrediction` of each question."""

    rows: list[Row]
    untrained: list[Row]  # the same of models with random weights, one after another


def answers(
    reader: Reader,
    exams: Exams,
    shots: int,
    limit: int | None,
    scoring: str = "letter",
    untrained: Sequence[Reader] = (),
) -> Answers:
    """Answer every question.

    Args:
        reader: The model.
        exams: Exam -> "dev" or "test" -> questions.
        shots: Worked examples in front of each question.
        limit: Questions of each subject, drawn at random; None: all.
        scoring: "letter" shows the options and scores their letters, as the paper; "text" shows the
            question alone and scores each option's own words per character (the cloze formulation
            of OLMES, Gu et al. 2024: models of a few million weights know facts long before they
            know letters).
        untrained: Models with random weights that answer as well, to measure chance.

    Raises:
        ValueError: A subject has fewer dev questions than `shots`, a prompt is longer than the
            model's positions, or the model has diverged.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    disable_progress_bars()
    tasks: dict[str, ConfigurableTask] = {}
    subjects: dict[str, tuple[str, str]] = {}
    for exam, subject, dev, test in _subjects(exams, shots, limit):
        name = f"{exam}_{subject}"
        tasks[name] = _task(name, exam, subject, dev, test, shots, scoring)
        subjects[name] = (exam, subject)
    results = evaluate(reader, {"tasks": tasks, "groups": {}}, bootstrap_iters=0)
    samples = [
        (*subjects[name], sample)
        for name, samples_of_subject in results["samples"].items()
        for sample in samples_of_subject
    ]
    rows = []
    for exam, subject, sample in samples:
        logliks = [loglik for loglik, _greedy in sample["filtered_resps"]]
        row = _answer(exam, subject, sample["doc"], logliks, scoring)
        # We count what the harness counts.
        harness_metric = "acc_norm" if scoring == "text" else "acc"
        assert (row["picked"] == row["answer"]) == bool(sample[harness_metric])
        rows.append(row)
    untrained_rows = []
    for other in untrained:
        judged = iter(other.judge([pair for *_, sample in samples for pair in sample["arguments"]]))
        for exam, subject, sample in samples:
            logliks = [next(judged)[0] for _ in LETTERS]
            untrained_rows.append(_answer(exam, subject, sample["doc"], logliks, scoring))
    return Answers(rows, untrained_rows)


def summary(
    rows: list[Row], shots: int, scoring: str = "letter", untrained: Sequence[Row] = ()
) -> dict[str, Any]:
    """Compute `schema.BenchmarkMetrics`.

    Accuracy in per cent by exam is the mean over its subjects, as both benchmarks report it; the
    standard error, in points, is that of the accuracy over all questions of the exam. `average` is
    of CMMLU and C-Eval alone, and only where the data have both; further exams stand beside it.

    Args:
        rows: The rows of `answers`.
        shots: Worked examples in front of each question.
        scoring: What was scored, letter or text.
        untrained: Its rows of models with random weights: chance, as measured. It is not 25 where
            the right option can be told by its length or its tokens.
    """
    metrics: dict[str, Any] = {}
    for exam, accuracy in estimators.exam_accuracies(rows).items():
        questions = len(accuracy.correct)
        right = mean(accuracy.correct)
        variance = right * (1 - right) / max(1, questions - 1)
        metrics[exam] = accuracy.value()
        metrics[f"{exam}_questions"] = questions
        metrics[f"{exam}_standard_error"] = 100 * math.sqrt(variance)
    for exam, accuracy in estimators.exam_accuracies(untrained).items():
        metrics[f"{exam}_untrained"] = accuracy.value()
    metrics |= {
        "shots": shots,
        "scoring": SCORING_STAMPS[scoring],
        "chance": CHANCE,
        "harness": f"lm-eval {version('lm-eval')}",
    }
    if missing := [exam for exam in estimators.AVERAGED_EXAMS if exam not in metrics]:
        return metrics | {"missing": f"no questions of {' and '.join(missing)} in the data"}
    return metrics | {"average": mean(metrics[exam] for exam in estimators.AVERAGED_EXAMS)}


def _subjects(exams: Exams, shots: int, limit: int | None) -> list[Subject]:
    """List the subjects of every exam, with at most `limit` questions each."""
    subjects = []
    for exam, questions in exams.items():
        for subject in dict.fromkeys(row["subject"] for row in questions["test"]):
            dev = [row for row in questions["dev"] if row["subject"] == subject]
            test = [row for row in questions["test"] if row["subject"] == subject]
            if len(dev) < shots:
                raise ValueError(
                    f"exam {exam}, subject {subject}: {len(dev)} dev questions are fewer than "
                    f"shots={shots}; set shots={len(dev)} or give more dev questions"
                )
            subjects.append((exam, subject, dev, splits.sample(test, limit, 0, _key)))
    return subjects


def _task(
    name: str,
    exam: str,
    subject: str,
    dev: list[Row],
    test: list[Row],
    shots: int,
    scoring: str,
) -> ConfigurableTask:
    """Make the harness's own task, with our rows in the place of its download."""
    data = {
        "dev": Dataset.from_list([_columns(row) for row in dev]),
        "test": Dataset.from_list([_columns(row) for row in test]),
    }
    config = _template(exam, subject)
    config |= {
        "task": name,
        "dataset_path": name,
        "dataset_name": None,
        "custom_dataset": lambda **_: data,
        "validation_split": None,
        "test_split": "test",
        "num_fewshot": shots,
    }
    if scoring == "text":
        config |= CLOZE
    config.pop("include", None)
    return ConfigurableTask(config=config)


def _template(exam: str, subject: str) -> dict[str, Any]:
    """Read the harness's template.

    An exam that the harness does not know is asked as CMMLU is, a subject that it does not know by
    the subject's own name.
    """
    general, subjects = TEMPLATES.get(exam, TEMPLATES["cmmlu"])
    special = f"{subjects}{subject}.yaml"
    if exam in TEMPLATES and (private_api.exam_templates() / special).exists():
        return _yaml(general) | _yaml(special)
    description = f"以下是关于{subject}的单项选择题，请直接给出正确答案的选项。\n\n"
    return _yaml(general) | {"description": description}


def _columns(row: Row) -> dict[str, Any]:
    """CMMLU's template reads Question and Answer, C-Eval's question and answer."""
    return {**row, "Question": row["question"], "Answer": row["answer"]}


def _key(row: Row) -> str:
    """What tells the questions of a subject apart."""
    return "\n".join([row["question"], *(row[letter] for letter in LETTERS)])


def _answer(exam: str, subject: str, doc: Row, logliks: list[float], scoring: str) -> Row:
    if not all(map(math.isfinite, logliks)):
        raise ValueError(
            f"exam {exam}, subject {subject}: log-likelihoods {logliks} are no numbers; "
            "the model has diverged"
        )
    scores = logliks
    if scoring == "text":
        lengths = [len(doc[letter]) for letter in LETTERS]
        scores = [loglik / length for loglik, length in zip(logliks, lengths, strict=True)]
    return {
        "exam": exam,
        "subject": subject,
        "question": doc["question"],
        "loglikelihood": dict(zip(LETTERS, logliks, strict=True)),
        "score": dict(zip(LETTERS, scores, strict=True)),
        "picked": LETTERS[scores.index(max(scores))],
        "answer": doc["answer"],
    }


def _check_length(prompts: list[tuple[int, ...]], context: int) -> None:
    """The harness would cut the examples away from the left, and say so in a log line only."""
    if too_long := [len(tokens) for tokens in prompts if len(tokens) > context]:
        raise ValueError(
            f"{len(too_long)} of {len(prompts)} exam prompts do not fit: the longest has "
            f"{max(too_long):,} tokens, the model reads {context:,}; set fewer shots (0 if the "
            "context is below 1k)"
        )


def _yaml(file: str) -> dict[str, Any]:
    return yaml.safe_load((private_api.exam_templates() / file).read_text(encoding="utf-8"))
