"""Make what training reads: the world's documents, a tokenizer, packed rows, published models.

Nothing is trained here. The path of the data:

    world (or curate.files)     documents as JSON lines
    tokenizer                   a byte-level BPE learnt from them
    pack                        documents -> token ids and loss mask (data.chat)
                                -> places in rows (data.packing) -> rows on disk (data.token_store)
    fetch, local_model          a published model or the user's instead of one of ours
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from soaes.data import chat, chat_choice, token_store
from soaes.data.chat import AnyTokenizer
from soaes.data.curation import exam_files
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.data.packing import ALGORITHMS
from soaes.data.records import categories_of
from soaes.data.settings import PackingSettings
from soaes.metrics.schema import write_metrics
from soaes.model import folder as model_folder
from soaes.pipeline import validation
from soaes.pipeline.store import check_room, write_json

Record = dict[str, Any]  # a document ("text") or a conversation ("messages"), see docs on the data


# ------------------------------------------------------------------------------------- documents


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
    short_questions: int,
    questions: int,
    exam_questions: int,
    unseen_enterprises: int = 0,
    unseen_questions: int = 0,
    report_share: float = 0.03,
    dev_share: float = 0.1,
    test_share: float = 0.1,
    *,
    out: Path,
) -> None:
    """Write the documents of one synthetic world.

    The files: general.jsonl, corpus.jsonl, dialogue.jsonl, qa/{train,dev,test}.jsonl (and
    qa/unseen.jsonl), exam/NAME/**.csv.

    Args:
        seed: of the facts and of all that is written about them.
        entities: people, cities, books, dishes ... that general text is about.
        famous: enterprises that general text knows as well.
        enterprises: enterprises that domain text alone is about.
        docs_per_entity: general documents about each entity or famous enterprise.
        docs_per_enterprise: domain documents about each enterprise.
        mcq_per_fact: times that general text asks each fact as an exam would, with options.
        cloze_per_fact: times that it asks each fact without options.
        dialogues: conversations of the chat data.
        short_questions: short questions of the chat data, about what general text covers.
        questions: questions of stage 2, over train, dev and test.
        exam_questions: questions of each exam.
        unseen_enterprises: of the enterprises, how many corpus.jsonl describes like the others
            but only qa/unseen.jsonl asks about.
        unseen_questions: questions of qa/unseen.jsonl.
        report_share: share of the questions that ask for a report.
        dev_share, test_share: shares of the questions in dev and test.
        out: folder for the documents.
    """
    from soaes.world import dialogues as world_dialogues
    from soaes.world import documents, exams, facts
    from soaes.world import questions as world_questions

    made_world = facts.build(seed, entities, famous, enterprises)

    general = documents.general(made_world, seed, docs_per_entity, mcq_per_fact, cloze_per_fact)
    write_jsonl(out / "general.jsonl", general)
    corpus = documents.domain(made_world, seed, docs_per_enterprise)
    write_jsonl(out / "corpus.jsonl", corpus)
    conversations = list(world_dialogues.dialogues(made_world, seed, dialogues))
    short = world_dialogues.short_questions(made_world, seed, short_questions, conversations)
    write_jsonl(out / "dialogue.jsonl", [*conversations, *short])

    samples_by_split = world_questions.questions(
        made_world,
        seed,
        questions,
        report_share=report_share,
        dev_share=dev_share,
        test_share=test_share,
        unseen_enterprises=unseen_enterprises,
        unseen_questions=unseen_questions,
    )
    for split, samples in samples_by_split.items():
        write_jsonl(out / "qa" / f"{split}.jsonl", samples)
    for exam, splits in exams.exams(made_world, seed, exam_questions).items():
        exam_files.write(out / "exam", exam, splits)


# ------------------------------------------------------------------------------------- tokenizer


def tokenizer(
    documents: Path,
    vocabulary: int,
    alphabet_size: int = 800,
    alphabet_weight: int = 20,
    *,
    out: Path,
) -> None:
    """Learn a byte-level BPE tokenizer with ChatML, with Qwen2's pre-tokenization.

    Words are learnt from general text alone, as a published tokenizer's are; single characters
    from every text, so that names are not spelt in bytes. Qwen2's own pre-tokenization is kept
    because transformers and vLLM read every qwen2 folder with it.

    Args:
        documents: folder of the documents.
        vocabulary: tokens in all, at least 512: bytes and special tokens come first.
        alphabet_size: how many of the most frequent characters are learnt from every text.
        alphabet_weight: how often each of these counts as seen, beside the general text.
        out: folder for the tokenizer.

    Raises:
        ValueError: if the vocabulary is below 512.
    """
    special_tokens = [chat.TEXT_END, chat.START, chat.END]
    if vocabulary < 512:
        raise ValueError(
            f"vocabulary={vocabulary}: 256 bytes and {len(special_tokens)} special tokens come "
            "first; set tokenizer.vocabulary to 512 or more"
        )
    from tokenizers import pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer  # imported for seconds

    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special_tokens,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    general = [record["text"] for record in read_jsonl(documents / "general.jsonl")]
    alphabet = "\n".join(_alphabet(documents, alphabet_size))
    backend = Qwen2Tokenizer().backend_tokenizer
    backend.train_from_iterator([*general, *[alphabet] * alphabet_weight], trainer)

    model = json.loads(backend.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    trained = Qwen2Tokenizer(
        model["vocab"],
        merges,
        unk_token=None,
        eos_token=chat.END,
        pad_token=chat.TEXT_END,
        additional_special_tokens=[chat.START],
        chat_template=chat.TEMPLATE,
    )
    trained.save_pretrained(out)


def _alphabet(documents: Path, size: int) -> list[str]:
    """Return the most frequent characters of all text that is trained on."""
    counts: Counter[str] = Counter()
    for name in ("general", "corpus", "dialogue", "qa/train"):
        for record in read_jsonl(documents / f"{name}.jsonl"):
            counts.update(_text(record))
    return [character for character, _ in counts.most_common(size)]


def _text(record: Record) -> str:
    if "text" in record:
        return record["text"]
    return "".join(message["content"] for message in record["messages"])


# ------------------------------------------------------------------------------------------ rows


class Encoded(NamedTuple):
    """Records as token ids, and which of them bear loss; entry i of both is record i."""

    ids: list[np.ndarray]
    bears_loss: list[np.ndarray]

    @property
    def lengths(self) -> list[int]:
        return [len(ids_T) for ids_T in self.ids]


def pack(
    documents: Path,
    tokenizer: Path,
    sources: list[str],
    categories: list[str] | None,
    context: int,
    packing: PackingSettings,
    replay: float = 0.0,
    replay_seed: int = 0,
    dev_one_in: int = 50,
    dev_prompts: int = 16,
    *,
    out: Path,
) -> None:
    """Pack the documents of one training phase into token rows.

    Writes the rows in train/ and dev/, the prompts of the validation Rouge in dev_prompts.jsonl,
    packing_report.json, where every token is accounted for: kept, split or dropped, and its counts
    of documents in metrics.json.

    Args:
        documents: folder of the documents.
        tokenizer: folder of the tokenizer.
        sources: any of general, corpus, dialogue, qa.
        categories: the dialogue categories to keep, each dialogue that has one of them; None or
            empty: all.
        context: tokens of a row.
        packing: how documents are placed, and what becomes of one longer than a row.
        replay: share of general text among the tokens to train on, in [0, 1). It comes on top of
            the sources, which stay whole; dev/ has none.
        replay_seed: of the order in which general text is replayed. It is not the run's seed, so
            that a larger share adds documents to those of a smaller one.
        dev_one_in: one document in so many is held out for dev/; qa has a dev split of its own.
        dev_prompts: conversations in dev_prompts.jsonl at most.
        out: folder for the rows.

    Raises:
        ValueError: if there is nothing to train or to validate on, a source is empty, a category
            has no dialogue, no document fits a row, or the tokenizer lacks its format's tokens.
    """
    _check_sources(documents, sources, categories)
    words = chat.load_tokenizer(tokenizer)
    chat.check_format(words)
    records = {
        split: _read_sources(documents, sources, split, categories, dev_one_in)
        for split in ("train", "dev")
    }
    if not records["train"] or not records["dev"]:
        kind = "+".join(sources) + (f" with categories {categories}" if categories else "")
        raise ValueError(
            f"{kind} holds {len(records['train'])} documents to train on and "
            f"{len(records['dev'])} to validate on; both are needed: "
            "check data.categories and the data"
        )

    general = _read(documents, "general", "train", None, dev_one_in) if replay else []
    replayed = _replay(words, documents, general, records["train"], replay, replay_seed)
    records["train"] += replayed

    report: dict[str, Any] = {
        "sources": sources,
        "context": context,
        "replay": {
            "share": replay,
            "documents": len(replayed),
            "tokens": sum(_encode(words, replayed).lengths),
            "different": len({record["id"] for record in replayed}),
        },
    }
    digest = chat.tokenizer_digest(tokenizer)
    for split in ("train", "dev"):
        rows, report[split] = _pack_split(words, records[split], context, packing)
        token_store.write(out / split, rows, digest)
    prompts = [record for record in records["dev"] if _is_prompt(words, record, context)]
    write_jsonl(out / "dev_prompts.jsonl", prompts[:dev_prompts])
    write_json(out / "packing_report.json", report)
    splits = (report["train"], report["dev"])
    metrics = {
        "documents": sum(counts["documents"] for counts in splits),
        "num_dropped": sum(counts["dropped"]["documents"] for counts in splits),
        "num_split": sum(counts["split"]["documents"] for counts in splits),
        "packed_rows": report["train"]["rows"],
        "fill": report["train"]["fill"],
    }
    write_metrics(out, metrics)


def _check_sources(documents: Path, sources: list[str], categories: list[str] | None) -> None:
    """Check that every source holds something, and every category some dialogue."""
    for source in sources:
        path = documents / ("qa/train.jsonl" if source == "qa" else f"{source}.jsonl")
        if not path.exists() or not path.stat().st_size:
            without = ", as chain@target=cpt_sft2 does" if source == "dialogue" else ""
            raise ValueError(
                f"sources={sources}: {documents.name} has no {source}; leave it out{without}, or "
                f"add {source}/ to the data"
            )
    if categories and "dialogue" in sources:
        validation.check_words("categories", categories, "the dialogue categories to keep")
        dialogues = read_jsonl(documents / "dialogue.jsonl")
        labels = {label for record in dialogues for label in categories_of(record)}
        existing = sorted(labels)
        for category in categories:
            if category not in existing:
                raise ValueError(
                    f"categories={categories}: no dialogue of {documents.name} has the "
                    f"category {category}. {validation.nearest(category, existing)} "
                    "(data.categories; with data=files they are those of the domain, "
                    "domain.categories)"
                )


def _read_sources(
    documents: Path, sources: list[str], split: str, categories: list[str] | None, dev_one_in: int
) -> list[Record]:
    records = []
    for source in sources:
        records += _read(documents, source, split, categories, dev_one_in)
    return records


def _read(
    documents: Path, source: str, split: str, categories: list[str] | None, dev_one_in: int
) -> list[Record]:
    """Read the records of one source in one split; the last of every `dev_one_in` is for dev."""
    if source == "qa":
        return read_jsonl(documents / "qa" / f"{split}.jsonl")
    records = read_jsonl(documents / f"{source}.jsonl")
    if categories:
        records = [record for record in records if _is_wanted(record, categories)]
    period = min(dev_one_in, len(records))  # of few documents, the last one
    in_dev = split == "dev"
    return [
        record for index, record in enumerate(records) if (index % period == period - 1) == in_dev
    ]


def _is_wanted(record: Record, categories: list[str]) -> bool:
    """Tell whether a record has one of the categories, or is plain text, which has none."""
    own = categories_of(record)
    return not own or not set(own).isdisjoint(categories)


def _replay(
    words: AnyTokenizer,
    documents: Path,
    general: list[Record],
    records: list[Record],
    share: float,
    seed: int,
) -> list[Record]:
    """Choose general documents in random order until they are `share` of all tokens.

    The share is met as nearly as whole documents allow. If the text is too short for it, it starts
    again in another order, so no document appears two times more often than another.
    """
    validation.check_in_range("replay", share, "[0, 1)", "general text's share of the tokens")
    if not share:
        return []
    if not general:
        raise ValueError(
            f"replay={share} takes from general text, and {documents.name} has none to train on; "
            "add general documents, or set replay=0"
        )
    lengths = _encode(words, general).lengths
    rng = Random(seed)
    chosen: list[Record] = []
    tokens_left = share / (1 - share) * sum(_encode(words, records).lengths)
    while tokens_left > 0:
        for index in rng.sample(range(len(general)), len(general)):
            if lengths[index] > 2 * tokens_left:  # the share is nearer without it
                return chosen
            chosen.append(general[index])
            tokens_left -= lengths[index]
    return chosen


def _pack_split(
    words: AnyTokenizer, records: list[Record], context: int, settings: PackingSettings
) -> tuple[token_store.Rows, dict[str, Any]]:
    """Pack records into rows; report on every token."""
    encoded = _encode(words, records)
    lengths = encoded.lengths
    overflow: str = settings.overflow
    if overflow == "auto":
        is_dialogue = "messages" in records[0]
        overflow = "drop" if is_dialogue else "split"
    packed = ALGORITHMS[settings.algorithm](
        lengths,
        context,
        overflow=overflow,
        names=[str(record.get("id", index)) for index, record in enumerate(records)],
    )
    if not packed.rows:
        raise ValueError(
            f"none of {len(lengths)} documents fits a row of {context} tokens; "
            "set a larger context, or packing.overflow=split"
        )
    pad = chat.token_id(words, chat.chat_format(words).text_end)
    rows = token_store.fill(
        encoded.ids, encoded.bears_loss, packed.pieces_P4, packed.rows, context, pad
    )

    dropped_tokens = sum(lengths[index] for index in packed.dropped)
    kept_tokens = sum(lengths) - dropped_tokens
    split_tokens = sum(length for length in lengths if length > context) if packed.split else 0
    report = {
        "documents": len(records),
        "tokens": sum(lengths),
        "kept": kept_tokens,
        "dropped": {
            "documents": len(packed.dropped),
            "tokens": dropped_tokens,
            "reason": f"longer than a row of {context}",
        },
        "split": {"documents": packed.split, "tokens": split_tokens},
        "rows": packed.rows,
        "fill": kept_tokens / (packed.rows * context),
        "loss_tokens": int(rows.loss_tokens_R.sum()),
    }
    return rows, report


def _encode(words: AnyTokenizer, records: list[Record]) -> Encoded:
    """Encode documents, of which every token bears loss, and conversations."""
    texts = [record["text"] for record in records if "text" in record]
    documents = iter(chat.document(words, texts))  # all at once: tokenizers uses every core
    ids, bears_loss = [], []
    for record in records:
        if "messages" in record:
            ids_T, bears_loss_T = chat.encode(words, record["messages"])
        else:
            ids_T = next(documents)
            bears_loss_T = np.ones(len(ids_T), bool)
        ids.append(ids_T)
        bears_loss.append(bears_loss_T)
    return Encoded(ids, bears_loss)


def _is_prompt(words: AnyTokenizer, record: Record, context: int) -> bool:
    """Tell a conversation that fits a row."""
    if "messages" not in record:
        return False
    ids_T, _ = chat.encode(words, record["messages"])
    return len(ids_T) <= context


# ---------------------------------------------------------- published models, and the user's own


def fetch(repo: str, revision: str, chat_format: str = "chatml", *, out: Path) -> None:
    """Copy a published model at a pinned revision from the Hugging Face hub or its local cache.

    Args:
        repo: owner and name on the hub.
        revision: the commit.
        chat_format: how its conversations are written, see `chat_choice.find_format`.
        out: folder for the model.

    Raises:
        ValueError: if its chat template cannot be trained with.
    """
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
    snapshot = snapshot_download(repo, revision=revision, allow_patterns=patterns)
    shutil.copytree(snapshot, out, dirs_exist_ok=True)
    if chat_format != "chatml":
        chat_choice.write_format(out, chat_format)


def local_model(
    content: Mapping[str, Any],
    chat_format: str = "auto",
    *,
    models: Mapping[str, str],
    out: Path,
) -> None:
    """Copy a model from the user's folder, which he may change or remove afterwards.

    Args:
        content: what stands for the model in the recipe, see `soaes.model.folder.content`.
        chat_format: how its conversations are written, see `chat_choice.find_format`.
        models: the user's models: digest of the content -> folder.
        out: folder for the model.

    Raises:
        ValueError: if no folder has this content (any more), or the model's chat template cannot
            be trained with.
    """
    digest = content["digest"]
    if digest not in models:
        raise ValueError(
            f"local_model: no folder with the content {digest[:12]} is named; name it with "
            "target.model=PATH or draft.model=PATH"
        )
    folder = Path(models[digest]).expanduser()
    names = model_folder.files(folder)
    size = sum((folder / name).stat().st_size for name in names)
    check_room(out, size, "the model's files", "set runtime.store to a larger disk")
    for name in names:
        shutil.copyfile(folder / name, out / name)
    if model_folder.content(out, None)["digest"] != digest:
        raise ValueError(f"{folder} has changed since the run began; run the same command again")
    chat_choice.write_format(out, chat_format)
