"""The domain of a configuration: what conf/domain says, checked as a whole, with its pages read.

A stage is given the parts that it uses (`${domain.topics}`, `${domain.rubric}`), never the whole,
so that another rubric scores no document again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from soaes.data.curation.settings import DomainSettings
from soaes.data.synthesis.settings import PromptSettings
from soaes.pipeline import conf_folders
from soaes.pipeline.validation import check_words, nearest

GROUP = "domain"
SCORED = ("topics", "tiers", "as_of")  # what documents are scored by
PAGES = ("rubric", "qa_rubric")  # texts, or the names of Markdown files beside the domain's
SETTINGS = (*SCORED, *PAGES, "categories", "prompt")
MAX_NAME = 200  # characters of a file's name
MAX_PAGE = 50_000  # characters of a page, which stands beside every item of a review
BEFORE_BRACE = re.compile(r"(\\*)\$\{")  # an interpolation, with what escapes it


def settle(cfg: DictConfig) -> None:
    """Check the domain of a configuration, and put the text of a page in place of its file's name.

    Args:
        cfg: A composed configuration, which is changed.

    Raises:
        ValueError: The domain has an unknown setting, a value of another kind, or names a page
            that is not there.
    """
    node = cfg.get(GROUP)
    if not isinstance(node, DictConfig):
        return
    try:
        written: Any = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"{GROUP}: {str(error).splitlines()[0]}; correct the domain") from None
    _check_names(GROUP, written, SETTINGS)
    DomainSettings(**{name: written[name] for name in SCORED})
    _check_prompt(written["prompt"])
    if written["categories"] is not None:
        kept = "the dialogue categories that stage 1 keeps; null for all"
        check_words(f"{GROUP}.categories", written["categories"], kept)
    for name in PAGES:
        text = written[name]
        if text is not None and not (isinstance(text, str) and text.strip()):
            raise ValueError(
                f"{GROUP}.{name}={text}: must be text, the name of a Markdown file beside the "
                "domain's, or null"
            )
        if isinstance(text, str) and text.endswith(".md") and "\n" not in text:
            text = _page(name, text)
        if isinstance(text, str) and len(text) > MAX_PAGE:
            raise ValueError(
                f"{GROUP}.{name}: has {len(text):,} characters, and people read it beside every "
                f"item; shorten it to {MAX_PAGE:,}"
            )
        if text != written[name]:
            node[name] = _escaped(text)


def _check_prompt(prompt: dict[str, Any]) -> None:
    """Check the words in which a model is asked."""
    if not isinstance(prompt, dict):
        raise ValueError(
            f"{GROUP}.prompt={prompt}: must have language, system, qa and report; leave it out, or "
            "change these alone"
        )
    words = {name: text for name, text in prompt.items() if name != "_target_"}
    _check_names(f"{GROUP}.prompt", words, list(PromptSettings.__dataclass_fields__))
    PromptSettings(**words)


def _check_names(place: str, written: dict[str, Any], known: Sequence[str]) -> None:
    for name in written:
        if name not in known:
            raise ValueError(f"{place}.{name}: is no setting; {nearest(name, list(known))}")
    for name in known:
        if name not in written:
            raise ValueError(f"{place}.{name}: must be given; set it again")


def _page(name: str, file: str) -> str:
    """Return the text of a page."""
    folders = [folder / GROUP for folder in conf_folders.folders()]
    paths = [folder / file for folder in folders if len(file) <= MAX_NAME and "/" not in file]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        places = ", ".join(map(str, folders))
        raise ValueError(
            f"{GROUP}.{name}={file}: there is no such file beside a domain's ({places}); write it "
            "there, or the text itself"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8; save it in that encoding") from None
    if not text.strip():
        raise ValueError(f"{path}: is empty; write the page, or set {GROUP}.{name}=null")
    return text


def _escaped(text: str) -> str:
    """Return a text written so that OmegaConf takes it as it is."""
    return BEFORE_BRACE.sub(lambda found: f"{found[1] * 2}\\${{", text)
