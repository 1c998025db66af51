"""Laws of export: a model with more vocabulary rows says what it said.

Only the little that the added rows take is different.
"""

import shutil

import pytest
import torch
from tokenizers import Tokenizer

from soaes.data import chat
from soaes.decode.autoregressive import Autoregressive
from soaes.decode.backends import vllm_backend
from soaes.decode.backends.base import BackendSettings, model_folders
from soaes.decode.backends.native import open_native
from soaes.decode.backends.transformers_backend import open_transformers
from soaes.decode.engine import Engine
from soaes.decode.settings import SamplingSettings, SpeculativeSettings
from soaes.decode.speculative import Speculative
from soaes.model import checkpoint
from soaes.stages.export import export
from tests.helpers.toys import save_pair, toy

ROWS, ADDED = 64, 9


@pytest.fixture(params=[False, True], ids=["own head", "tied head"])
def folders(tmp_path, request):
    """A draft of 64 rows, a target of 73, and the draft padded."""
    save_pair(tmp_path)
    toy(2, tie_word_embeddings=request.param).save_pretrained(tmp_path / "draft")
    toy(1, vocab_size=ROWS + ADDED).save_pretrained(tmp_path / "target")
    (tmp_path / "padded").mkdir()
    export(tmp_path / "draft", tmp_path / "target", out=tmp_path / "padded")
    return tmp_path


def test_the_shares_of_the_former_ids_stay_and_an_added_row_is_as_likely_as_the_one_it_repeats(
    folders,
):
    draft, padded = (checkpoint.load(folders / name) for name in ("draft", "padded"))
    assert (
        padded.config.vocab_size
        == ROWS + ADDED
        == len(padded.lm_head.weight)
        == len(padded.model.embed_tokens.weight)
    )
    ids = torch.randint(4, ROWS, (8, 20), generator=torch.manual_seed(0))
    with torch.no_grad():
        p, q = (model(ids).logits.double().softmax(-1) for model in (draft, padded))
    start = Tokenizer.from_file(str(folders / "padded" / "tokenizer.json")).token_to_id(chat.START)
    assert torch.allclose(q[..., :ROWS], p / (1 + ADDED * p[..., start, None]), rtol=1e-5)
    assert torch.allclose(q[..., ROWS:], q[..., start, None].expand(8, 20, ADDED), rtol=1e-6)
    assert torch.allclose(
        q[..., ROWS:].sum(-1), ADDED * p[..., start] / (1 + ADDED * p[..., start]), rtol=1e-5
    )


def test_greedy_answers_stay_and_our_decoders_take_the_pair(folders):
    target, draft, padded = (
        Engine(checkpoint.load(folders / name).eval()) for name in ("target", "draft", "padded")
    )
    greedy, generator = {"temperature": 0.0, "top_p": 1.0, "eos": 1}, torch.Generator()
    prompts = [[5, 9, 7], [20], [33, 34, 35, 33]]
    draft_texts, padded_texts = (
        [Autoregressive(model, **greedy).generate(ids, 20, generator).tokens for ids in prompts]
        for model in (draft, padded)
    )
    assert draft_texts == padded_texts
    with pytest.raises(ValueError, match="vocabulary of 64, the target of 73"):
        Speculative(target, draft, 3, **greedy)
    for ids in prompts:
        generation = Speculative(target, padded, 3, **greedy).generate(ids, 20, generator)
        assert (
            generation.tokens
            == Autoregressive(target, **greedy).generate(ids, 20, generator).tokens
        )


@pytest.mark.parametrize("open_backend", [open_native, open_transformers])
def test_a_pair_is_opened_with_equal_rows(folders, open_backend):
    """The draft of fewer rows drafts what the exported one does."""
    decode = SpeculativeSettings(3)
    settings = BackendSettings(decode, SamplingSettings(0.0, 1.0), eos=1, dtype="float32")
    counts = {}
    for name in ("draft", "padded"):
        pair_folders = model_folders(folders / "target", folders / name, decode)
        with open_backend(pair_folders, settings) as pair:
            generation = pair.method.generate([5, 9, 7], 20, torch.Generator())
            counts[name] = (generation.tokens, generation.accepted, generation.drafted)
    assert counts["draft"] == counts["padded"]
    reverse = model_folders(folders / "draft", folders / "target", decode)
    with pytest.raises(ValueError, match="vocabulary of 73 rows, the target one of 64"):
        with open_backend(reverse, settings):
            pass


def test_vllm_reads_a_draft_with_as_many_rows(folders):
    target = folders / "target"
    with vllm_backend.with_equal_rows(folders / "padded", target) as folder:
        assert folder == folders / "padded"
    with vllm_backend.with_equal_rows(folders / "draft", target) as folder:
        weights = checkpoint.load(folder).state_dict()
        exported = checkpoint.load(folders / "padded").state_dict()
        assert all(torch.equal(weights[name], exported[name]) for name in exported)
        assert (folder / "tokenizer.json").exists()
    assert not folder.exists() and (folders / "draft").exists()


def test_a_model_of_equal_rows_is_copied_in_its_own_dtype(folders):
    folder = folders / "half"
    toy(3).to(torch.bfloat16).save_pretrained(folder)
    shutil.copy(folders / "draft" / "tokenizer.json", folder)
    export(folder, folders / "draft", out=folders / "padded")
    original, exported = (checkpoint.load(path, "auto") for path in (folder, folders / "padded"))
    for (name, weight), exported_weight in zip(
        original.state_dict().items(), exported.state_dict().values()
    ):
        assert weight.dtype == exported_weight.dtype == torch.bfloat16 and torch.equal(
            weight, exported_weight
        ), name


def test_rows_are_never_cut_and_tokenizers_never_mixed(folders):
    with pytest.raises(
        ValueError, match="target has 73 vocabulary rows and .*draft 64: rows are added, never cut"
    ):
        export(folders / "target", folders / "draft", out=folders)
    other = Tokenizer.from_file(str(folders / "draft" / "tokenizer.json"))
    other.add_tokens(["another"])
    other.save(str(folders / "target" / "tokenizer.json"))
    with pytest.raises(ValueError, match="different tokenizers"):
        export(folders / "draft", folders / "target", out=folders)
