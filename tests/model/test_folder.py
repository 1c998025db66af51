"""What is no model that can be trained is refused in one line with the way out."""

import json
import shutil

import pytest

from soaes.model import folder as model_folder
from tests.helpers.models import save_model, save_tokenizer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    return save_model(root / "model", "llama", save_tokenizer(root / "tokenizer"))


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def remove(folder, *names):
    for name in names:
        (folder / name).unlink()


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def shard(folder):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")


def elsewhere(folder):
    index = {"weight_map": {"a": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def gguf(folder):
    remove(folder, "model.safetensors", "config.json")
    (folder / "model-Q4.gguf").write_bytes(b"GGUF")


def adapter(folder):
    remove(folder, "model.safetensors", "config.json")
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"")


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def pointer(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (folder / "model.safetensors").write_text(text)


def config(**changes):
    return lambda folder: rewrite(folder / "config.json", **changes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(shutil.rmtree, "no such folder; .*owner/name@COMMIT", id="none"),
        pytest.param(lambda folder: remove(folder, "config.json"), "no config.json", id="config"),
        pytest.param(
            lambda folder: (folder / "config.json").write_text("{"), "cannot be read", id="json"
        ),
        pytest.param(config(model_type=None), "names no model_type", id="type"),
        pytest.param(config(architectures=["BertForMaskedLM"]), "no next token", id="bert"),
        pytest.param(
            config(quantization_config={"quant_method": "gptq"}), r"quantised \(gptq\)", id="gptq"
        ),
        pytest.param(
            lambda folder: remove(folder, "model.safetensors"), "there are no weights", id="weights"
        ),
        pytest.param(pickled, "pytorch_model.bin holds pickled .*save_pretrained", id="pickled"),
        pytest.param(cut, r"cut short: [\d,]+ of [\d,]+ bytes", id="cut"),
        pytest.param(pointer, "a pointer of Git LFS", id="pointer"),
        pytest.param(shard, "1 of 2 files .* model-2.safetensors", id="shards"),
        pytest.param(elsewhere, "../model.safetensors lies in another folder", id="elsewhere"),
        pytest.param(adapter, "adapter without its model; merge it", id="adapter"),
        pytest.param(gguf, "GGUF", id="gguf"),
        pytest.param(
            lambda folder: remove(folder, "tokenizer.json"), "no tokenizer.json", id="tokenizer"
        ),
    ],
)
def test_what_is_no_model_is_refused(folder, damage, message):
    model_folder.check("target.model=it", folder)
    damage(folder)
    with pytest.raises(ValueError, match=f"^target.model=it: .*{message}") as error:
        model_folder.check("target.model=it", folder)
    assert "\n" not in str(error.value) and ";" in str(error.value)


@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors"])
def test_a_file_is_no_folder(tmp_path, name):
    (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(ValueError, match="name the folder"):
        model_folder.check("draft.model=it", tmp_path / name)


def test_the_content_is_of_what_makes_the_model(folder):
    before = model_folder.content(folder, None)
    assert before == before | {"type": "llama", "layers": 2, "width": 64}
    (folder / "README.md").write_text("of no account")
    assert model_folder.content(folder, None) == before
    for name in model_folder.files(folder):
        path = folder / name
        text = path.read_bytes()
        path.write_bytes(text[:-1] + bytes([text[-1] ^ 1]) if name[-1] == "s" else text + b" ")
        after = model_folder.content(folder, None)
        assert after["digest"] != before["digest"], name
        path.write_bytes(text)
    assert model_folder.content(folder, None) == before
