"""Where a model that the user names comes from: a folder of his own, or the Hugging Face hub.

`target.model=PATH` or `target.model=owner/name@COMMIT` (and the same for the draft and for the
medium size) replaces the origin that the scale has, by the nodes of conf/origin. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict

from soaes.model import folder as model_folder

ROLES = ("target", "medium", "draft")

# key beside a role's `origin` -> the node of the origin that it replaces
KEYS = {"model": "base", "instruct_model": "instruct"}

PUBLISHED = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>.*))?")
COMMIT = re.compile("[0-9a-f]{40}")


class Published(NamedTuple):
    """A published model."""

    repo: str  # owner/name
    revision: str  # commit


class Named(NamedTuple):
    """A model that the user names."""

    role: str  # one of ROLES
    key: str  # one of KEYS
    value: str

    @property
    def setting(self) -> str:
        """The setting that names it, for messages."""
        return f"{self.role}.{self.key}"


def choose(cfg: DictConfig, options: Path, keep_tokenizer: bool = False) -> None:
    """Replace the origins of the models that a configuration names; all others stay.

    Beside a base model without an instruct model of its own, Instruct is general SFT of it. Rows
    are then written with the tokenizer of the named base model, the target's before the draft's.

    Args:
        cfg: A composed configuration, which is changed.
        options: The folder conf/origin.
        keep_tokenizer: Whether rows are written with the tokenizer that the configuration has.

    Raises:
        ValueError: A name is neither a model's folder nor a published model at a commit.
    """
    models = list(named(cfg))
    with open_dict(cfg):
        for model in models:
            option = "local" if is_local(model) else "fetch"
            nodes = OmegaConf.load(options / f"{option}.yaml")
            node: Any = OmegaConf.select(nodes, KEYS[model.key])
            if option == "fetch":
                node.repo = f"${{published:{model.setting},${{...{model.key}}},repo}}"
                node.revision = f"${{published:{model.setting},${{...{model.key}}},revision}}"
            node.chat_format = "${chat_format}"
            if model.key == "model":
                sft = OmegaConf.load(options / "pretrain.yaml").instruct
                cfg[model.role].origin = {"base": node, "instruct": sft}
            else:
                cfg[model.role].origin.instruct = node
        bases = [model.role for model in models if model.key == "model"]
        if bases and not keep_tokenizer:
            first = "target" if "target" in bases else bases[-1]
            cfg.tokenizer = f"${{{first}.origin.base}}"


def named(cfg: DictConfig) -> Iterator[Named]:
    """Yield the models that a configuration names, base models first.

    A size whose origin is that of another (size=small, size=medium) has none of its own.
    """
    for key in KEYS:
        for role in ROLES:
            if OmegaConf.is_interpolation(cfg[role], "origin"):
                continue
            value = cfg[role].get(key)
            if value is not None:
                yield Named(role, key, str(value))


def is_local(model: Named) -> bool:
    """Tell whether a model lies in a folder of the user's, which is checked.

    Raises:
        ValueError: The name is no model's folder, or a published model without a commit.
    """
    folder = Path(model.value).expanduser()
    if not folder.exists() and PUBLISHED.fullmatch(model.value):
        published(model.setting, model.value)
        return False
    model_folder.check(f"{model.setting}={model.value}", folder)
    return True


def published(setting: str, value: str) -> Published:
    """Split `owner/name@COMMIT`.

    Raises:
        ValueError: The revision is missing, or is a name, which may mean another model tomorrow.
    """
    parts = PUBLISHED.fullmatch(value)
    assert parts is not None, "is_local has looked at it"
    repo, revision = parts["repo"], parts["revision"]
    page = f"the commits are listed at https://huggingface.co/{repo}/commits/main"
    if revision is None:
        raise ValueError(
            f"{setting}={value}: here is no such folder, and a published model is named with its "
            f"commit, {repo}@COMMIT ({page})"
        )
    if not COMMIT.fullmatch(revision):
        raise ValueError(
            f"{setting}={value}: {revision} may be another model tomorrow; name the commit, 40 "
            f"hexadecimal digits ({page})"
        )
    return Published(repo, revision)
