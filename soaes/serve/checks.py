"""Check that two models can be served together, before minutes are spent on starting vLLM.

What vLLM would refuse is said in the user's words, and what it would do wrong without a word is
refused: ids that mean other tokens to the draft, an answer that never stops, a chat template that
writes prompts unlike those of the training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from soaes.data import chat, chat_choice
from soaes.data.chat import ChatFormat, ChatTokenizer
from soaes.decode.backends import vllm_environment
from soaes.decode.backends.vllm_environment import CPU_HEAD_SIZES
from soaes.model.folder import text_config
from soaes.serve.pair import Model, Pair

MAX_DEVICES = 64  # numbers of devices that an error looks for a possible one among

# The stages whose models were trained on conversations in the format that their folders have.
TRAINED = ("instruct", "sft", "distill", "export")


def check_pair(pair: Pair, device: str, tensor_parallel_size: int) -> list[str]:
    """Check everything about a pair that can be known from its folders.

    Args:
        pair: The pair.
        device: cpu or cuda.
        tensor_parallel_size: Devices over which vLLM splits both models.

    Returns:
        Remarks on what is allowed and may not be meant.

    Raises:
        ValueError: The pair cannot be served.
    """
    target, draft = pair.target, pair.draft
    if chat.tokenizer_digest(target.folder) != chat.tokenizer_digest(draft.folder):
        raise ValueError(
            f"{target.setting} and {draft.setting} have different tokenizers, so that a drafted id "
            "would be another token of the target; take a draft with the target's tokenizer"
        )
    check_rows(pair)
    for model in (target, draft):
        _check_heads(model, device)
    _check_split(pair, tensor_parallel_size)
    check_end(target)
    return list(_check_prompts(pair))


# ---------------------------------------------------------------- shapes


def rows(model: Model) -> int:
    """Return a model's vocabulary rows."""
    count: int = text_config(model.folder)["vocab_size"]
    return count


def positions(pair: Pair) -> int:
    """Return the longest text that both models can read, in tokens."""
    configs = (text_config(model.folder) for model in (pair.target, pair.draft))
    return min(config["max_position_embeddings"] for config in configs)


def check_rows(pair: Pair) -> None:
    """Check that the draft has no more vocabulary rows than the target; fewer can be filled up.

    Raises:
        ValueError: It has more.
    """
    target_rows, draft_rows = rows(pair.target), rows(pair.draft)
    if draft_rows > target_rows:
        raise ValueError(
            f"{pair.draft.setting} has {draft_rows:,} vocabulary rows and {pair.target.setting} "
            f"{target_rows:,}: rows are added, never cut; take another draft"
        )


def _check_heads(model: Model, device: str) -> None:
    """Check that vLLM has a kernel for a model's heads; on a GPU it has more."""
    config = text_config(model.folder)
    head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if device == "cpu" and head_size not in CPU_HEAD_SIZES:
        raise ValueError(
            f"{model.setting} has heads of {head_size} units, and on a CPU vLLM reads heads of "
            f"{', '.join(map(str, CPU_HEAD_SIZES))}; serve a model with one of these, or on a GPU"
        )


def _check_split(pair: Pair, devices: int) -> None:
    """Check that both models can be cut over the devices.

    vLLM 0.32 refuses a draft model that is cut over fewer devices than its target is
    (vllm/v1/spec_decode/draft_model.py), so one number has to suit both.
    """
    models = (pair.target, pair.draft)
    for model in models:
        config = text_config(model.folder)
        if not vllm_environment.can_cut(config, devices):
            possible = [
                count
                for count in range(1, MAX_DEVICES + 1)
                if all(vllm_environment.can_cut(text_config(each.folder), count) for each in models)
            ]
            heads, kv_heads = config["num_attention_heads"], _kv_heads(config)
            raise ValueError(
                f"--tensor-parallel-size {devices}: {model.setting} has {heads} heads, {kv_heads} "
                f"of keys and {config['intermediate_size']:,} units, which cannot be cut so; "
                f"target and draft are cut alike, by {', '.join(map(str, possible))}"
            )


def _kv_heads(config: dict[str, Any]) -> int:
    count: int = config.get("num_key_value_heads") or config["num_attention_heads"]
    return count


# ---------------------------------------------------------------- texts


def served_format(model: Model) -> ChatFormat:
    """Return how vLLM will write a model's conversations: by the template in its folder.

    Raises:
        ValueError: There is none, as of a base model, or answers would have no end.
    """
    try:
        return chat_choice.own_format(model.folder)
    except ValueError as error:
        raise ValueError(f"{model.setting}: {error}; serve a chat model") from None


def check_end(target: Model) -> None:
    """Check that generation stops at the token with which the chat template ends an answer.

    Raises:
        ValueError: It does not: answers would go on until they are cut.
    """
    tokenizer = chat.load_tokenizer(target.folder)
    end = served_format(target).end
    end_id = chat.token_id(tokenizer, end)
    stop_ids = _stop_ids(target.folder, tokenizer)
    if end_id not in stop_ids:
        stops = ", ".join(f"{tokenizer.id_to_token(stop)} ({stop})" for stop in sorted(stop_ids))
        raise ValueError(
            f"{target.setting}: its chat template ends an answer with {end} ({end_id}) and vLLM "
            f"would stop at {stops or 'nothing'}, as of a base model; serve the chat model, or set "
            f"eos_token_id of generation_config.json to {end_id}"
        )


def _stop_ids(folder: Path, tokenizer: ChatTokenizer) -> set[int]:
    """Return the ids at which vLLM stops: of the generation config, and the tokenizer's own end."""
    path = folder / "generation_config.json"
    stop = _read_json(path if path.exists() else folder / "config.json").get("eos_token_id")
    ids = stop if isinstance(stop, list) else [stop]
    token = _read_json(folder / "tokenizer_config.json").get("eos_token")
    content = token["content"] if isinstance(token, dict) else token
    if content:
        ids = [*ids, tokenizer.token_to_id(content)]
    return {token_id for token_id in ids if token_id is not None}


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def prompt(model: Model, question: str) -> list[int]:
    """Return the ids that vLLM makes of a question, by the template in the model's folder."""
    tokenizer = chat.load_tokenizer(model.folder)
    served = ChatTokenizer(tokenizer.tokenizer, served_format(model))
    return chat.prompt(served, [{"role": "user", "content": question}])


def _check_prompts(pair: Pair) -> Iterator[str]:
    """Check that prompts are served as they were trained on; yield remarks.

    What the format of a folder of somebody else's was in training is not known here.
    """
    question = chat.SAMPLE[0]["content"]
    messages = [{"role": "user", "content": question}]
    target, draft = pair.target, pair.draft
    served = prompt(target, question)
    trained = chat.prompt(chat.load_tokenizer(target.folder), messages)
    if target.stage in TRAINED and served != trained:
        raise ValueError(
            f"{target.setting}: chat_template.jinja writes a prompt unlike those of its training; "
            "put the template back, or build the model again"
        )
    if draft.stage in TRAINED and served != chat.prompt(
        chat.load_tokenizer(draft.folder), messages
    ):
        yield (
            f"{draft.setting} was trained on prompts that are written in another way, so that it "
            "may draft badly"
        )
