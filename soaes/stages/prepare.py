"""Make what training reads: the world's documents, a tokenizer, packed rows, published models. Nothing is trained here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from soaes.data import chat, token_store
from soaes.data.curation import exam_files
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.data.packing import ALGORITHMS
from soaes.data.settings import PackingSettings
from soaes.pipeline import validation

DEV_SHARE = 50  # one document in 50 is held out from training for the validation perplexity
DEV_PROMPTS = 16


def world(
    seed: int,
    entities: int,
    famous: int,
    enterprises: int,
    docs_per_entity: int,
    docs_per_enterprise: int,
    mcq_per_fact: int,
    cloze_per_fact: int,
    dialogues: int,
    questions: int,
    exam_questions: int,
    unseen_enterprises: int = 0,
    unseen_questions: int = 0,
    *,
    out: Path,
) -> None:
    """Tell one synthetic world: general.jsonl, corpus.jsonl, dialogue.jsonl, qa/{train,dev,test}.jsonl, exam/NAME/**.csv.

    `unseen_enterprises` of the enterprises are told in corpus.jsonl as all are, but asked about in qa/unseen.jsonl alone."""
    from soaes.world import dialogues as talk
    from soaes.world import documents, exams, facts
    from soaes.world import questions as ask

    told = facts.build(seed, entities, famous, enterprises)
    write_jsonl(
        out / "general.jsonl",
        documents.general(told, seed, docs_per_entity, mcq_per_fact, cloze_per_fact),
    )
    write_jsonl(out / "corpus.jsonl", documents.domain(told, seed, docs_per_enterprise))
    write_jsonl(out / "dialogue.jsonl", talk.dialogues(told, seed, dialogues))
    for split, samples in ask.questions(
        told,
        seed,
        questions,
        unseen_enterprises=unseen_enterprises,
        unseen_questions=unseen_questions,
    ).items():
        write_jsonl(out / "qa" / f"{split}.jsonl", samples)
    for exam, splits in exams.exams(told, seed, exam_questions).items():
        exam_files.write(out / "exam", exam, splits)


ALPHABET_WEIGHT = 20  # how often a character of the alphabet counts as seen


def tokenizer(documents: Path, vocabulary: int, *, out: Path) -> None:
    """Byte-level byte-pair encoding of `vocabulary` tokens, cut as Qwen2's, with ChatML.

    Words are learnt from the general text alone, as a published tokenizer's are; single characters from every text, so that names
    are not spelt in bytes. Qwen2's own cutting is kept because transformers and vLLM read every qwen2 folder with it."""
    from tokenizers import pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    special = [chat.TEXT_END, chat.START, chat.END]
    if vocabulary < 512:
        raise ValueError(
            f"vocabulary={vocabulary}: 256 bytes and {len(special)} special tokens come first; set tokenizer.vocabulary to 512 or more"
        )
    backend = Qwen2Tokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    general = [record["text"] for record in read_jsonl(documents / "general.jsonl")]
    backend.train_from_iterator(
        [*general, *["\n".join(_alphabet(documents))] * ALPHABET_WEIGHT], trainer
    )
    learnt = json.loads(backend.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    kept = Qwen2Tokenizer(
        learnt["vocab"],
        merges,
        unk_token=None,
        eos_token=chat.END,
        pad_token=chat.TEXT_END,
        additional_special_tokens=[chat.START],
        chat_template=chat.TEMPLATE,
    )
    kept.save_pretrained(out)


def _alphabet(documents: Path, most: int = 800) -> list[str]:
    """The most frequent characters of all that is trained on."""
    from collections import Counter

    seen = Counter(
        character
        for name in ("general", "corpus", "dialogue", "qa/train")
        for record in read_jsonl(documents / f"{name}.jsonl")
        for character in _text(record)
    )
    return [character for character, _ in seen.most_common(most)]


def _text(record: dict[str, Any]) -> str:
    return (
        record["text"]
        if "text" in record
        else "".join(message["content"] for message in record["messages"])
    )


def pack(
    documents: Path,
    tokenizer: Path,
    sources: list[str],
    categories: list[str] | None,
    context: int,
    packing: PackingSettings,
    replay: float = 0.0,
    *,
    out: Path,
) -> None:
    """Token rows of what a phase reads: train/ and dev/ (one document in 50; for qa its own dev split), dev_prompts.jsonl, packing_report.json.

    sources: general, corpus, dialogue, qa. categories: the dialogue categories to keep. Too long a text is split, too long a dialogue
    dropped and counted, unless packing.overflow says otherwise. replay: general text's share of the tokens to train on, in [0, 1);
    it comes on top of what is read, which stays whole; dev/ has none."""
    model = chat.load_tokenizer(tokenizer)
    records = {
        split: [
            record for name in sources for record in _records(documents, name, split, categories)
        ]
        for split in ("train", "dev")
    }
    if not records["train"] or not records["dev"]:
        found = f"{len(records['train'])} documents to train on and {len(records['dev'])} to validate on"
        raise ValueError(
            f"{'+'.join(sources)}{f' with categories {categories}' if categories else ''} holds {found}; both are needed: check data.categories and the data"
        )
    general = _replayed(model, documents, records["train"], replay)
    records["train"] += general
    account = {
        "sources": sources,
        "context": context,
        "replay": {
            "share": replay,
            "documents": len(general),
            "tokens": sum(_lengths(model, general)),
            "different": len({record["id"] for record in general}),
        },
    }
    for split in ("train", "dev"):
        rows, account[split] = _packed(model, records[split], context, packing)
        token_store.write(out / split, rows)
    talks = [
        record
        for record in records["dev"]
        if "messages" in record and len(chat.encode(model, record["messages"])[0]) <= context
    ]
    write_jsonl(out / "dev_prompts.jsonl", talks[:DEV_PROMPTS])
    (out / "packing_report.json").write_text(json.dumps(account, indent=1, ensure_ascii=False))


def _records(
    documents: Path, name: str, split: str, categories: list[str] | None
) -> Iterable[dict[str, Any]]:
    if name == "qa":
        return read_jsonl(documents / "qa" / f"{split}.jsonl")
    found = [
        record
        for record in read_jsonl(documents / f"{name}.jsonl")
        if not categories or record.get("category") in (None, *categories)
    ]
    share = min(DEV_SHARE, len(found))  # of few documents, the last one
    return [
        record for at, record in enumerate(found) if (at % share == share - 1) == (split == "dev")
    ]


REPLAY_SEED = 0  # of the order in which general text comes back: a larger share adds to what a smaller one brings


def _replayed(
    model: Any, documents: Path, read: list[dict[str, Any]], share: float
) -> list[dict[str, Any]]:
    """General documents in random order, until `share` of all tokens is met as nearly as whole documents allow.

    Text that is too short for that starts again in another order, so no document comes two times more than another."""
    validation.check(replay=share)
    if not share:
        return []
    general = list(_records(documents, "general", "train", None))
    if not general:
        raise ValueError(
            f"replay={share} takes from general text, and {documents.name} has none to train on; add general documents, or set replay=0"
        )
    lengths, rng, chosen = _lengths(model, general), Random(REPLAY_SEED), []
    left = share / (1 - share) * sum(_lengths(model, read))
    while left > 0:
        for at in rng.sample(range(len(general)), len(general)):
            if lengths[at] > 2 * left:  # the share is nearer without it
                return chosen
            chosen.append(general[at])
            left -= lengths[at]
    return chosen


def _lengths(model: Any, records: list[dict[str, Any]]) -> list[int]:
    return [len(ids) for ids in _encoded(model, records)[0]]


def _packed(
    model: Any, records: list[dict[str, Any]], context: int, packing: PackingSettings
) -> tuple[token_store.Rows, dict[str, Any]]:
    """Rows and the account of every token: kept, split, dropped with the reason, and padding."""
    tokens, loss = _encoded(model, records)
    lengths = [len(ids) for ids in tokens]
    talk = "messages" in records[0]
    overflow = packing.overflow
    if overflow == "auto":
        overflow = "drop" if talk else "split"
    packed = ALGORITHMS[packing.algorithm](
        lengths,
        context,
        overflow=overflow,
        names=[str(record.get("id", at)) for at, record in enumerate(records)],
    )
    if not packed.rows:
        raise ValueError(
            f"none of {len(lengths)} documents fits a row of {context} tokens; set a larger context, or packing.overflow=split"
        )
    rows = token_store.fill(
        tokens, loss, packed.pieces_P4, packed.rows, context, model.token_to_id(chat.TEXT_END)
    )
    kept = sum(lengths) - sum(lengths[at] for at in packed.dropped)
    dropped = {
        "documents": len(packed.dropped),
        "tokens": sum(lengths) - kept,
        "reason": f"longer than a row of {context}",
    }
    return rows, {
        "documents": len(records),
        "tokens": sum(lengths),
        "kept": kept,
        "dropped": dropped,
        "split": {
            "documents": packed.split,
            "tokens": sum(length for length in lengths if length > context) if packed.split else 0,
        },
        "rows": packed.rows,
        "fill": kept / (packed.rows * context),
        "loss_tokens": int(rows.loss_tokens_R.sum()),
    }


def _encoded(
    model: Any, records: list[dict[str, Any]]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    texts = iter(chat.document(model, [record["text"] for record in records if "text" in record]))
    pairs = [
        chat.encode(model, record["messages"]) if "messages" in record else None
        for record in records
    ]
    tokens = [next(texts) if pair is None else pair[0] for pair in pairs]
    return tokens, [
        np.ones(len(ids), bool) if pair is None else pair[1]
        for ids, pair in zip(tokens, pairs, strict=True)
    ]


def fetch(repo: str, revision: str, *, out: Path) -> None:
    """A published model at a pinned revision, from the Hugging Face hub or its local cache."""
    from huggingface_hub import snapshot_download

    got = snapshot_download(
        repo, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]
    )
    shutil.copytree(got, out, dirs_exist_ok=True)
