"""Score multiple-choice exams with lm-evaluation-harness: the answer letter by log-likelihood (decision 12), or the answer's text.

The harness makes the prompts, from its own CMMLU and C-Eval templates, and judges; the questions come from memory, so
that it needs no network, no cache and no process of its own. Knows rows and a model: not folders, not recipes.
"""

import logging
import math
from collections import defaultdict
from functools import lru_cache
from importlib.metadata import version
from statistics import mean

import torch
import yaml
from datasets import Dataset, disable_progress_bars
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from soaes.data.records import LETTERS
from soaes.metrics import estimators
from soaes.pipeline import private_api

CHANCE = 25.0
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
# B prompts, T tokens, D width, M last positions, A tokens of one answer, V vocabulary


class Reader(TemplateLM):
    """A causal model as the harness asks for it.

    The harness's own wrapper takes the softmax of every position over the whole vocabulary, and imports accelerate;
    an answer needs the last positions only.
    """

    backend = "causal"

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, batch: int) -> None:
        super().__init__()
        self.model, self.tokenizer, self.batch = model.eval(), tokenizer, batch
        self.tok_encode = lru_cache(maxsize=8)(
            self.tok_encode
        )  # the four letters of a question share its prompt

    @property
    def eot_token_id(self) -> int:
        return self.model.config.eos_token_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_) -> list[int]:
        return self.tokenizer.encode(string, add_special_tokens=False).ids

    def _loglikelihood_tokens(
        self, requests: list, disable_tqdm: bool = False, **_
    ) -> list[tuple[float, bool]]:
        """Each (text, prompt, answer) as (log-likelihood of the answer in nats, whether it is the greedy one)."""
        askers = defaultdict(
            list
        )  # the tokens to read -> who asks: " A" .. " D" after one prompt are read once
        for at, (_text, prompt, answer) in enumerate(requests):
            askers[tuple(prompt + answer[:-1])].append(at)
        order = sorted(askers, key=len, reverse=True)
        _fit(order, self.model.config.max_position_embeddings)
        found: dict[int, tuple[float, bool]] = {}
        for start in range(0, len(order), self.batch):
            part = order[start : start + self.batch]
            for tokens, states_TD in zip(part, self._states(part), strict=True):
                answers = [requests[at][2] for at in askers[tokens]]
                found |= zip(askers[tokens], self._judge(states_TD, answers), strict=True)
        return [found[at] for at in range(len(requests))]

    @torch.inference_mode()
    def _states(self, part: list[tuple[int, ...]]) -> list[torch.Tensor]:
        """Final hidden states of each row. Padding stands right of the tokens, where a causal model does not look."""
        longest = max(map(len, part))
        ids_BT = torch.tensor(
            [[*tokens, *[0] * (longest - len(tokens))] for tokens in part], device=self.model.device
        )
        states_BTD = self.model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        return [states_BTD[row, : len(tokens)] for row, tokens in enumerate(part)]

    @torch.inference_mode()
    def _judge(self, states_TD: torch.Tensor, answers: list[list[int]]) -> list[tuple[float, bool]]:
        logits_MV = self.model.get_output_embeddings()(states_TD[-max(map(len, answers)) :])
        scores_MV = logits_MV.float().log_softmax(-1)
        judged = []
        for answer in answers:
            last_AV, ids_A = (
                scores_MV[-len(answer) :],
                torch.tensor(answer, device=scores_MV.device),
            )
            greedy = bool((last_AV.argmax(-1) == ids_A).all())
            judged.append((last_AV.gather(1, ids_A[:, None]).sum().item(), greedy))
        return judged

    def loglikelihood(self, requests: list, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return super().loglikelihood(requests, disable_tqdm=True)  # a log file has no use for a bar

    def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = False) -> list[float]:
        raise NotImplementedError  # no exam asks for these two

    def generate_until(self, requests: list, disable_tqdm: bool = False) -> list[str]:
        raise NotImplementedError


def answers(
    reader: Reader, exams: dict, shots: int, limit: int | None, scoring: str = "letter"
) -> list[dict]:
    """Every question answered: exam, subject, question, the log-likelihoods of A .. D, the picked and the right letter.

    `exams` is exam -> "dev" or "test" -> rows; `limit` is the number of questions of each subject. scoring: "letter" shows the
    options and scores their letters, as the paper; "text" shows the question alone and scores each option's own words (the
    cloze formulation of OLMES, Gu et al. 2024: models of a few million weights know facts long before they know letters).
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    disable_progress_bars()
    tasks, places = {}, {}
    for exam, subject, dev, test in _subjects(exams, shots):
        name = f"{exam}_{subject}"
        tasks[name], places[name] = (
            _task(name, exam, subject, dev, test, shots, scoring),
            (exam, subject),
        )
    found = evaluate(reader, {"tasks": tasks, "groups": {}}, limit=limit, bootstrap_iters=0)
    return [
        _answer(*places[name], sample) for name, rows in found["samples"].items() for sample in rows
    ]


def summary(rows: list[dict], shots: int, scoring: str = "letter") -> dict:
    """Accuracy in percent by exam: the mean over its subjects, as both benchmarks report it.

    The standard error, in points, is that of the accuracy over all questions of the exam. `average` is of CMMLU and
    C-Eval alone, and only where both were taken; further exams stand beside it.
    """
    found: dict = {}
    for exam, accuracy in estimators.exam_accuracies(rows).items():
        questions = len(accuracy.correct)
        right = mean(accuracy.correct)
        variance = right * (1 - right) / max(1, questions - 1)
        found[exam] = accuracy.value()
        found[f"{exam}_questions"] = questions
        found[f"{exam}_standard_error"] = 100 * math.sqrt(variance)
    found |= {
        "shots": shots,
        "scoring": scoring,
        "chance": CHANCE,
        "harness": f"lm-eval {version('lm-eval')}",
    }
    if missing := [exam for exam in estimators.AVERAGED_EXAMS if exam not in found]:
        return found | {"missing": f"no questions of {' and '.join(missing)} in the data"}
    return found | {"average": mean(found[exam] for exam in estimators.AVERAGED_EXAMS)}


def _subjects(exams: dict, shots: int) -> list[tuple[str, str, list[dict], list[dict]]]:
    """(exam, subject, its dev rows, its test rows)."""
    found = []
    for exam, parts in exams.items():
        for subject in dict.fromkeys(row["subject"] for row in parts["test"]):
            dev, test = (
                [row for row in parts[part] if row["subject"] == subject]
                for part in ("dev", "test")
            )
            if len(dev) < shots:
                raise ValueError(
                    f"exam {exam}, subject {subject}: {len(dev)} dev questions are fewer than shots={shots}; "
                    f"set shots={len(dev)} or give more dev questions"
                )
            found.append((exam, subject, dev, test))
    return found


def _task(
    name: str, exam: str, subject: str, dev: list[dict], test: list[dict], shots: int, scoring: str
) -> ConfigurableTask:
    """The harness's own task, with our rows in the place of its download."""
    rows = {
        "dev": Dataset.from_list(list(map(_columns, dev))),
        "test": Dataset.from_list(list(map(_columns, test))),
    }
    ours = {
        "task": name,
        "dataset_path": name,
        "dataset_name": None,
        "custom_dataset": lambda **_: rows,
    }
    splits = {"validation_split": None, "test_split": "test", "num_fewshot": shots}
    config = _template(exam, subject) | ours | splits | (CLOZE if scoring == "text" else {})
    config.pop("include", None)
    return ConfigurableTask(config=config)


def _template(exam: str, subject: str) -> dict:
    """An exam that the harness does not know is asked as CMMLU, a subject that it does not know by its own name."""
    general, subjects = TEMPLATES.get(exam, TEMPLATES["cmmlu"])
    special = f"{subjects}{subject}.yaml"
    if exam in TEMPLATES and (private_api.exam_templates() / special).exists():
        return _yaml(general) | _yaml(special)
    return _yaml(general) | {
        "description": f"以下是关于{subject}的单项选择题，请直接给出正确答案的选项。\n\n"
    }


def _columns(row: dict) -> dict:
    """CMMLU's template writes Question and Answer, C-Eval's question and answer."""
    return row | {"Question": row["question"], "Answer": row["answer"]}


def _answer(exam: str, subject: str, sample: dict) -> dict:
    scores = [score for score, _greedy in sample["filtered_resps"]]
    if not all(map(math.isfinite, scores)):
        raise ValueError(
            f"exam {exam}, subject {subject}: log-likelihoods {scores} are no numbers; the model has diverged"
        )
    picked = LETTERS[scores.index(max(scores))]
    assert (picked == sample["doc"]["answer"]) == bool(
        sample["acc"]
    )  # we count what the harness counts
    asked = {"exam": exam, "subject": subject, "question": sample["doc"]["question"]}
    return asked | {
        "loglikelihood": dict(zip(LETTERS, scores, strict=True)),
        "picked": picked,
        "answer": sample["doc"]["answer"],
    }


def _fit(prompts: list[tuple[int, ...]], context: int) -> None:
    """The harness would cut the examples away from the left, and say so in a log line only."""
    if over := [len(tokens) for tokens in prompts if len(tokens) > context]:
        raise ValueError(
            f"{len(over)} of {len(prompts)} exam prompts do not fit: the longest has {max(over):,} tokens, the model "
            f"reads {context:,}; set fewer shots (0 if the context is below 1k)"
        )


def _yaml(file: str) -> dict:
    return yaml.safe_load((private_api.exam_templates() / file).read_text(encoding="utf-8"))
