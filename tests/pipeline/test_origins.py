"""A model of the user's is named by one setting, and a changed file is another recipe."""

import shutil

import pytest

from soaes.pipeline import labels, sweep
from soaes.pipeline.store import Store
from soaes.run import run
from soaes.stages import prepare
from tests.helpers.models import save_llama3_tokenizer, save_model, save_tokenizer

COMMIT = "587cc4061cf6a7cc0d429d05c109447e5cf063af"


@pytest.fixture(autouse=True, scope="module")
def store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as environment:
        root = tmp_path_factory.mktemp("store")
        environment.setenv("SOAES_STORE", str(root))
        yield Store(root)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two families, one tokenizer."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = save_tokenizer(root / "tokenizer")
    save_model(root / "llama", "llama", tokenizer)
    save_model(root / "qwen3", "qwen3", tokenizer)
    return root


def job(*words):
    (only,) = sweep.jobs(list(words))
    return only


def stages(recipe, stage):
    return [each for each in recipe.ancestry().values() if each.stage == stage]


@pytest.mark.parametrize("scale", ["smoke", "tiny", "paper"])
def test_one_setting_names_a_model_at_every_scale(models, scale):
    row = job("goal=target.cpt", f"scale={scale}", f"target.model={models / 'llama'}")
    (model,) = stages(row.recipe, "local_model")
    (pack,) = stages(row.recipe, "pack")
    assert row.recipe.arguments["parent"].name == model.name
    assert pack.arguments["tokenizer"].name == model.name
    assert not row.idle and not stages(row.recipe, "pretrain") + stages(row.recipe, "fetch")
    assert row.runtime.models == {model.arguments["content"]["digest"]: str(models / "llama")}
    assert "/" not in str(model.written) and labels.label(model).startswith("llama 2x64 (")


def test_the_target_and_the_draft_are_named_apart(models):
    target, draft = (f"{role}.model={models / name}" for role, name in PAIR)
    both = job("goal=distill", target, draft).recipe
    one = job("goal=distill", target).recipe
    assert len(stages(both, "local_model")) == 2 and not stages(both, "pretrain")
    (own,) = stages(one, "pretrain")
    assert own.arguments["tokenizer"].stage == "local_model"  # the draft is ours, with its tokens
    kept = [each.name for recipe in (both, one) for each in stages(recipe, "teach")]
    assert len(set(kept)) == 1, "another draft is another target"
    (rows,) = {each.arguments["tokenizer"].name for each in stages(both, "pack")}
    assert rows == job("goal=target.base", target).recipe.name


PAIR = (("target", "llama"), ("draft", "qwen3"))


def test_a_tokenizer_that_is_chosen_besides_is_not_replaced_in_silence(models):
    words = ["goal=target.cpt", f"target.model={models / 'llama'}", "tokenizer=bpe"]
    with pytest.raises(ValueError, match="holds token ids of local_model.* and .* of tokenizer-"):
        job(*words)


def test_instruct_is_sft_of_the_model_or_named(models):
    words = ["goal=evaluate", "chain@target=instruct", f"target.model={models / 'llama'}"]
    own = job(*words).recipe.arguments["model"]
    assert own.stage == "instruct" and own.arguments["parent"].stage == "local_model"
    assert labels.label(own).endswith(" + general SFT")
    named = job(*words, f"target.instruct_model={models / 'qwen3'}").recipe.arguments["model"]
    assert named.stage == "local_model" and named.arguments["content"]["type"] == "qwen3"


def test_a_size_has_the_model_of_its_own_role(models):
    row = job("goal=target.base", "size=small", f"draft.model={models / 'qwen3'}")
    assert row.recipe.arguments["content"]["type"] == "qwen3"
    words = ["goal=target.base", "size=small", f"target.model={models / 'llama'}"]
    with pytest.raises(ValueError, match="target.model=.* changes nothing"):
        run([*words, "dry=true"])


def test_a_changed_file_is_another_recipe(models, tmp_path):
    folder = shutil.copytree(models / "llama", tmp_path / "model")
    words = ["goal=target.base", f"target.model={folder}"]
    before = job(*words).recipe.name
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert job("goal=target.base", f"target.model={moved}").recipe.name == before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert job(*words).recipe.name != before, "the cached job was trusted"


def test_a_published_model_is_named_with_its_commit():
    row = job("goal=target.cpt", f"target.model=Owner/Name-7B@{COMMIT}")
    (model,) = stages(row.recipe, "fetch")
    wanted = {"repo": "Owner/Name-7B", "revision": COMMIT, "chat_format": "auto"}
    assert model.arguments == wanted
    assert not row.idle and row.runtime.models == {}


def test_a_published_model_is_copied_from_the_hubs_cache_and_checked(tmp_path, monkeypatch, store):
    """The cache of huggingface_hub, written by hand, stands in for the hub."""
    tokenizer = save_llama3_tokenizer(tmp_path / "tokenizer")
    snapshot = tmp_path / "hub" / "models--Owner--Name" / "snapshots" / COMMIT
    save_model(snapshot, "llama", tokenizer)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = [f"target.model=Owner/Name@{COMMIT}", "logger=none"]
    assert run(["goal=target.base", *words]) == 0
    (name,) = store.names("fetch")
    assert (store.folder(name) / "chat_format.json").exists()
    draft = save_model(tmp_path / "draft", "qwen3", save_tokenizer(tmp_path / "other"))
    with pytest.raises(ValueError, match="=Owner/Name.* have different tokenizers"):
        run(["goal=distill", *words, f"draft.model={draft}", "dry=true"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("owner/name", "no such folder, and a published model is named with its commit"),
        ("owner/name@main", "main may be another model tomorrow; name the commit"),
        ("owner/name@v1.0", "v1.0 may be another"),
        ("owner/name@587cc40", "587cc40 may be another"),
        ("owner/name@", "name the commit, 40"),
        ("./nowhere", "no such folder; give the path"),
    ],
)
def test_what_moves_or_is_not_there_is_refused(value, message):
    for setting in ("target.model", "draft.instruct_model"):
        with pytest.raises(ValueError, match=f"^{setting}={value}: .*{message}"):
            sweep.jobs(["goal=distill", f"{setting}={value}"])


def test_the_model_is_copied_and_the_folder_free_again(models, store, tmp_path):
    folder = shutil.copytree(models / "qwen3", tmp_path / "model")
    words = ["goal=draft.base", f"draft.model={folder}", "logger=none"]
    assert run(words) == 0
    (name,) = store.names("local_model")
    copied = store.folder(name)
    for path in folder.iterdir():
        assert (copied / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="no folder with the content"):
        content = {"digest": "0" * 64}
        prepare.local_model(content, models={}, out=tmp_path)


def test_a_folder_that_changes_meanwhile_is_refused(models, tmp_path):
    folder = shutil.copytree(models / "qwen3", tmp_path / "model")
    (out := tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="has changed since the run began"):
        prepare.local_model({"digest": "0" * 64}, models={"0" * 64: str(folder)}, out=out)


def test_two_chat_templates_are_refused_before_anything_is_built(tmp_path):
    target = save_model(tmp_path / "t", "llama", save_llama3_tokenizer(tmp_path / "one"))
    draft = save_model(tmp_path / "d", "qwen3", save_llama3_tokenizer(tmp_path / "two"))
    words = ["goal=distill", f"target.model={target}", f"draft.model={draft}", "dry=true"]
    assert run(words) == 0
    template = draft / "chat_template.jinja"
    template.write_text(template.read_text().replace("\n\n", "\n"))
    with pytest.raises(ValueError, match="write a conversation differently; .*chat_template.jinja"):
        run(words)
    template.unlink()
    with pytest.raises(ValueError, match="neither ChatML's tokens nor a chat template"):
        run(words)
    with pytest.raises(ValueError, match="chat_format=chatml: .* has no <.im_start.>"):
        run([*words, "chat_format=chatml"])


def test_two_tokenizers_are_refused_before_anything_is_built(models, tmp_path):
    other = save_tokenizer(tmp_path / "tokenizer", ("<|im_end|>", "<|im_start|>", "<|endoftext|>"))
    draft = save_model(tmp_path / "draft", "qwen2", other)
    words = ["goal=distill", f"target.model={models / 'llama'}", f"draft.model={draft}"]
    with pytest.raises(ValueError, match="have different tokenizers"):
        run([*words, "dry=true"])
