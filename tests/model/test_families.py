"""Every family goes through every stage: right, or refused by name with the way out.

Right means equal to transformers' own loss, forward and generate of the same folder, document by
document, with eager attention. The nightly test writes the table of cells to docs/models.md; a
part of it is checked every time.
"""

import json
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from soaes.data import chat, teacher_store, token_store
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.data.settings import PackingSettings
from soaes.decode.backends import native, transformers_backend
from soaes.decode.backends.base import BackendSettings, model_folders
from soaes.decode.settings import SamplingSettings, SpeculativeSettings
from soaes.metrics import exams
from soaes.model import attention, checkpoint, losses
from soaes.model import soft_targets as formats
from soaes.model.causal_lm import CausalLM
from soaes.model.distilled_lm import DistilledLM
from soaes.model.output_head import OutputHead
from soaes.model.settings import ConstantSchedule, OptimizerSettings, ProbeSettings
from soaes.pipeline.runtime import Execution
from soaes.pipeline.tracking import Tracker
from soaes.stages import evaluate, export, prepare, teach, train
from tests.helpers.families import FAMILIES, family

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
EVERY_DAY = ["Phi", "Gemma-2", "Qwen3-Next"]
CONTEXT, VOCABULARY, ADDED = 48, 520, 9
OPTIM = OptimizerSettings(
    lr=1e-3, global_batch_size=4, schedule=ConstantSchedule(warmup=0.05), precision="32-true"
)
TAU = 2.0
FORMATS = {
    "hidden": formats.Hidden(),
    "topk": formats.TopK(VOCABULARY - 1, [TAU], "float32"),
}
NEAR = pytest.approx


# ---------------------------------------------------------------- data, and transformers' own


def conversation(index):
    question = {"role": "user", "content": f"第{index}家企业在哪里？"}
    return [question, {"role": "assistant", "content": f"在{index}号楼。"}]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Documents, a tokenizer of ChatML, and rows of texts and of conversations."""
    root = tmp_path_factory.mktemp("data")
    documents = root / "documents"
    texts = [{"id": f"t{i}", "text": f"企业{i}成立于{1950 + i}年，主营钢铁。"} for i in range(30)]
    for name in ("general", "corpus"):
        write_jsonl(documents / f"{name}.jsonl", texts)
    write_jsonl(documents / "dialogue.jsonl", [{"messages": conversation(0)}])
    for split, numbers in (("train", range(12)), ("dev", range(12, 15)), ("test", range(15, 18))):
        questions = [
            {"id": f"q{index}", "task": "qa", "messages": conversation(index)} for index in numbers
        ]
        write_jsonl(documents / "qa" / f"{split}.jsonl", questions)
    prepare.tokenizer(documents, 512, out=root / "tokenizer")
    for name in ("corpus", "qa"):
        (root / name).mkdir()
        prepare.pack(
            documents,
            root / "tokenizer",
            [name],
            None,
            CONTEXT,
            PackingSettings(),
            out=root / name,
        )
    return root


def reference(folder):
    """transformers' own model of a folder."""
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def documents_of(rows, split):
    """(token ids, labels) of every document of packed rows."""
    arrays = [np.load(rows / split / f"{name}.npy") for name in token_store.Rows._fields]
    for ids_T, labels_T, positions_T in zip(*arrays):
        starts = np.flatnonzero(positions_T == 0)[1:]
        for ids, labels in zip(np.split(ids_T, starts), np.split(labels_T, starts)):
            if (labels[1:] != token_store.IGNORE).any():
                yield torch.tensor(ids.astype(np.int64)), torch.tensor(labels.astype(np.int64))


@torch.inference_mode()
def own_perplexity(model, rows):
    """exp(mean loss) over dev rows, by `model(..., labels=...).loss` of each document alone."""
    nats = tokens = 0
    for ids_T, labels_T in documents_of(rows, "dev"):
        count = int((labels_T[1:] != token_store.IGNORE).sum())
        nats += model(ids_T[None], labels=labels_T[None]).loss.item() * count
        tokens += count
    return math.exp(nats / tokens)


@torch.inference_mode()
def own_logits(model, rows):
    """Logits of every training token that bears loss, in row order, and its id."""
    logits, targets = [], []
    for ids_T, labels_T in documents_of(rows, "train"):
        bears_loss = labels_T[1:] != token_store.IGNORE
        logits.append(model(ids_T[None]).logits[0, :-1][bears_loss].float())
        targets.append(ids_T[1:][bears_loss])
    return torch.cat(logits), torch.cat(targets)


@torch.inference_mode()
def own_answer(model, ids, eos, max_new_tokens=8):
    """The new tokens of transformers' greedy generate()."""
    config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=eos, pad_token_id=eos
    )
    ids_1T = torch.tensor([ids])
    mask_1T = torch.ones_like(ids_1T)
    out = model.generate(ids_1T, attention_mask=mask_1T, generation_config=config)
    return out[0, len(ids) :].tolist()


# ---------------------------------------------------------------- a family's way


class Way:
    """A family's folders, and one method for each cell; ValueError is a refusal.

    A stage that was refused is not built; a cell that needs it takes the folder before it.
    """

    def __init__(self, name, data, root):
        self.data, self.root = data, root
        self.tokenizer = chat.load_tokenizer(data / "tokenizer")
        self.folder = self.current = root / "base"
        self.draft = root / "draft"
        for seed, folder in enumerate((self.folder, self.draft)):
            checkpoint.save(family(name, VOCABULARY, seed), folder, data / "tokenizer")
        self.attention = "sdpa"
        self.format = "topk"

    @property
    def execution(self):
        return Execution(micro_batch_size=2, attention=self.attention)

    def made(self, name):
        out = self.root / name
        out.mkdir()
        return out

    def prompts(self):
        for record in read_jsonl(self.data / "documents" / "qa" / "test.jsonl"):
            yield chat.prompt(self.tokenizer, record["messages"][:-1])

    def load(self):
        ids = torch.arange(40, 80)[None]
        with torch.inference_mode():
            own = reference(self.folder)(ids).logits
            assert torch.allclose(checkpoint.load(self.folder)(ids).logits, own, atol=1e-4)

    def attend(self, name):
        """The first attention that is accepted is used from there on."""
        self.attention = name
        self.trained("cpt", self.folder, "corpus", self.made(f"attention-{name}"))

    def trained(self, stage, parent, rows, out):
        function = getattr(train, stage)
        rows = self.data / rows
        function(parent, rows, partial(CausalLM), OPTIM, 0, execution=self.execution, out=out)
        metrics = json.loads((out / "metrics.json").read_text())
        assert metrics["val/perplexity_before"] == NEAR(
            own_perplexity(reference(parent), rows), rel=1e-4
        )
        assert metrics["val/perplexity"] == NEAR(own_perplexity(reference(out), rows), rel=1e-4)
        assert metrics["val/perplexity"] != metrics["val/perplexity_before"]

    def cpt(self):
        self.trained("cpt", self.current, "corpus", self.made("cpt"))
        self.current = self.root / "cpt"

    def sft(self):
        self.trained("sft", self.current, "qa", self.made("sft"))
        self.current = self.root / "sft"

    def teach(self, name):
        """A divergence from the teacher's own distribution is 0."""
        rows, out = self.data / "qa", self.made(f"store-{name}")
        probe = ProbeSettings(taus=[TAU])
        teach.teach(self.current, rows, FORMATS[name], self.execution, probe=probe, out=out)
        store = teacher_store.load(out, rows.name, chat.tokenizer_digest(self.current))
        logits_NV, _ = own_logits(reference(self.current), rows)
        fields = store.rows(np.arange(store.contract["packed_rows"]))
        divergence = store.soft_targets.divergence(fields, store.head_VD, logits_NV, TAU, "forward")
        assert abs(divergence.item()) / len(logits_NV) < 1e-4
        flat_NV = torch.zeros_like(logits_NV)
        divergence = store.soft_targets.divergence(fields, store.head_VD, flat_NV, TAU, "forward")
        assert divergence.item() == NEAR(losses.kl_loss(logits_NV, flat_NV, TAU).item(), rel=1e-3)
        self.format = name

    def distill(self):
        """One step over all rows: its loss is Eq. 2 of transformers' own logits."""
        if not any((self.root / f"store-{name}" / "metrics.json").exists() for name in FORMATS):
            raise ValueError(self.refusal)
        rows, out = self.data / "qa", self.made("distill")
        count = len(np.load(rows / "train" / "ids_RT.npy"))
        optim = replace(OPTIM, global_batch_size=count)
        train.distill(
            self.folder,
            rows,
            self.root / f"store-{self.format}",
            0.5,
            TAU,
            partial(DistilledLM),
            optim,
            0,
            execution=self.execution,
            tracker=Tracker(out / "curves.jsonl"),
            out=out,
        )
        teacher_NV, _ = own_logits(reference(self.current), rows)
        student_NV, targets_N = own_logits(reference(self.folder), rows)
        kl_loss = losses.kl_loss(teacher_NV, student_NV, TAU)
        cross_entropy = torch.nn.functional.cross_entropy(student_NV, targets_N, reduction="sum")
        expected = (0.5 * kl_loss + 0.5 * cross_entropy).item() / len(targets_N)
        points = read_jsonl(out / "curves.jsonl")
        (loss,) = [point["train/loss"] for point in points if "train/loss" in point]
        assert loss == NEAR(expected, rel=1e-3)
        metrics = json.loads((out / "metrics.json").read_text())
        assert metrics["val/perplexity"] == NEAR(own_perplexity(reference(out), rows), rel=1e-4)

    def evaluate(self):
        out, documents = self.made("evaluate"), self.data / "documents"
        evaluate.evaluate(self.current, documents, "test", None, {"qa": 8}, out=out)
        model, eos = reference(self.current), self.tokenizer.token_to_id(chat.END)
        answers = [row["prediction"] for row in read_jsonl(out / "predictions.jsonl")]
        own = [own_answer(model, ids, eos) for ids in self.prompts()]
        texts = [[token for token in tokens if token != eos] for tokens in own]
        assert answers == [self.tokenizer.decode(tokens) for tokens in texts]

    def benchmark(self):
        network = checkpoint.load(self.current)
        reader = exams.Reader(
            exams.ModelJudge(network, OutputHead.of(network).logits, 2), self.tokenizer
        )
        model, answer = reference(self.current), [60, 70]
        for ids in self.prompts():
            ((score, _),) = reader._loglikelihood_tokens([("", ids, answer)])
            with torch.inference_mode():
                logits_TV = model(torch.tensor([[*ids, *answer]])).logits[0]
            log_probs = logits_TV.log_softmax(-1)[-3:-1]
            own = log_probs.gather(1, torch.tensor(answer)[:, None]).sum().item()
            assert score == NEAR(own, abs=1e-3)

    def speed(self, open_backend):
        decode, eos = SpeculativeSettings(n=3), self.tokenizer.token_to_id(chat.END)
        settings = BackendSettings(decode, SamplingSettings(0.0, 1.0), eos, "float32")
        folders = model_folders(self.current, self.draft, decode)
        model = reference(self.current)
        with open_backend(folders, settings) as pair:
            for ids in self.prompts():
                own = own_answer(model, ids, eos)
                for decoder in (pair.method, pair.baseline):
                    assert decoder.generate(ids, 8, torch.Generator().manual_seed(0)).tokens == own

    def export(self):
        """Added rows are as likely as <|im_start|>, and the others keep their ratios."""
        larger, out = self.made("larger"), self.made("export")
        config = json.loads((self.current / "config.json").read_text())
        config["vocab_size"] = VOCABULARY + ADDED
        (larger / "config.json").write_text(json.dumps(config))
        for path in self.current.glob("token*"):
            (larger / path.name).write_bytes(path.read_bytes())
        export.export(self.current, larger, out=out)
        ids = torch.arange(40, 80)[None]
        with torch.inference_mode():
            p, q = (reference(path)(ids).logits.softmax(-1) for path in (self.current, out))
        start = self.tokenizer.token_to_id(chat.START)
        assert torch.allclose(q[..., VOCABULARY:], q[..., start, None].expand(1, 40, ADDED))
        rest = q[..., :VOCABULARY]
        assert torch.allclose(rest / rest.sum(-1, keepdim=True), p, rtol=1e-3, atol=1e-6)

    def reload(self):
        """The folder says what was trained: transformers asks, reads and stops as training did."""
        if self.current != self.root / "sft":
            raise ValueError(self.refusal)
        folder, eos = self.root / "sft", self.tokenizer.token_to_id(chat.END)
        model, words = reference(folder), AutoTokenizer.from_pretrained(folder)
        assert model.dtype == torch.float32 == model.config.dtype
        assert model.config.eos_token_id == model.generation_config.eos_token_id == eos
        assert words.eos_token == chat.END
        messages = conversation(3)[:1]
        served = words.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert served == chat.prompt(self.tokenizer, messages)
        attention.set_attention(model, "eager")
        tokens = model.generate(torch.tensor([served]), do_sample=False, max_new_tokens=8)
        assert tokens[0, len(served) :].tolist() == own_answer(model, served, eos)

    refusal = ""


CELLS = {
    "load": Way.load,
    "`documents`": partial(Way.attend, name="documents"),
    "`eager`": partial(Way.attend, name="eager"),
    "`sdpa`": partial(Way.attend, name="sdpa"),
    "CPT": Way.cpt,
    "SFT": Way.sft,
    "`hidden`": partial(Way.teach, name="hidden"),
    "`topk`": partial(Way.teach, name="topk"),
    "distillation": Way.distill,
    "evaluation": Way.evaluate,
    "exams": Way.benchmark,
    "speed, native": partial(Way.speed, open_backend=native.open_native),
    "speed, transformers": partial(Way.speed, open_backend=transformers_backend.open_transformers),
    "export": Way.export,
    "reload": Way.reload,
}
ATTENTIONS = [cell for cell in CELLS if cell.startswith("`") and cell.strip("`") not in FORMATS]


def outcomes(name, data, root):
    """Return each cell's refusal, empty where it is right."""
    way = Way(name, data, root)
    cells, accepted = {}, []
    for cell, run in CELLS.items():
        if cell == "CPT" and accepted:
            way.attention = accepted[-1]
        try:
            run(way)
            cells[cell] = ""
        except ValueError as refusal:
            cells[cell] = way.refusal = str(refusal).replace(f"{root}/", "").replace("\n", " ")
            assert re.search(r"\b(set|take|use)\b", cells[cell]), f"{name}, {cell}: no way out"
        if cell in ATTENTIONS and not cells[cell]:
            accepted.append(way.attention)
    return cells


# ---------------------------------------------------------------- the table

INTRODUCTION = """\
# Models

Written by `tests/model/test_families.py` (`make test-nightly`), not by hand. Each family is a tiny
random model with the structure that sets it apart: soft caps, scales, biases, windows, experts.

- **yes**: equal to transformers' own loss, forward pass and `generate()` of the same folder.
- **no**: refused by name before the first step; the reasons are listed below.

`documents`, `eager` and `sdpa` are values of `runtime.execution.attention`, `hidden` and `topk` of
`soft_targets`, `native` and `transformers` of `backend`. The other cells use an attention that was
accepted. Flash attention needs a GPU and is checked where a run uses it: `soaes.model.self_check`
compares every model that is trained or taught from with its own forward pass, in the run's
attention, precision and micro-batch size. [own_models.md](own_models.md) says how to name a model.
"""


def line(name, cells):
    return f"| {name} | " + " | ".join("no" if cells[cell] else "yes" for cell in CELLS) + " |"


def page(table):
    """Return docs/models.md."""
    reasons = {}
    for name, cells in table.items():
        for refusal in filter(None, cells.values()):
            text = re.sub(r"\d+%", "N %", refusal)
            text = re.sub(r"^model type .*?: our own", "our own", text)
            reasons.setdefault(text, []).append(name)
    lines = [
        *INTRODUCTION.splitlines(),
        "",
        "| family | " + " | ".join(CELLS) + " |",
        "|---" * (len(CELLS) + 1) + "|",
        *(line(name, cells) for name, cells in table.items()),
        "",
        "## What is refused, and the way out",
        "",
        *(f"- {', '.join(dict.fromkeys(names))}: {text}" for text, names in reasons.items()),
        "",
    ]
    return "\n".join(lines)


@pytest.mark.parametrize("name", EVERY_DAY)
def test_a_family_is_right_or_refused_as_the_page_says(name, data, tmp_path):
    assert line(name, outcomes(name, data, tmp_path)) in PAGE.read_text("utf-8").splitlines()


@pytest.mark.nightly
def test_every_family_is_right_or_refused_and_the_page_says_so(data, tmp_path):
    table = {}
    for index, name in enumerate(FAMILIES):
        root = tmp_path / str(index)
        root.mkdir()
        table[name] = outcomes(name, data, root)
    before = PAGE.read_text("utf-8") if PAGE.exists() else ""
    PAGE.write_text(page(table), encoding="utf-8")
    assert page(table) == before, f"{PAGE} was out of date and is written anew: commit it"
