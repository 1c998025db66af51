"""A domain is one file: checked as a whole, and a recipe holds the parts that its stage uses."""

import pytest
import yaml
from omegaconf import OmegaConf

from soaes.pipeline import conf_folders, domains, sweep
from soaes.pipeline.compose import compose_job, recipe_at

PROMPTS = {
    name: yaml.safe_load((conf_folders.CONF / "prompt" / f"{name}.yaml").read_text("utf-8"))
    for name in ("zh", "en")
}
TOPICS = "topics: {heat: [大火, 小火]}\n"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The words that name a folder of one recipe."""
    monkeypatch.setenv("SOAES_STORE", str(tmp_path / "store"))
    recipe = tmp_path / "data" / "corpus" / "recipes" / "a.md"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("# 蛋\n\n把两个鸡蛋打散，小火煎三分钟。", encoding="utf-8")
    return ["data=files", f"data.root={tmp_path / 'data'}", "author=rules"]


@pytest.fixture
def own(tmp_path):
    """Write files of a domain into a folder of the user's, and use it: `own(cooking=text)`."""

    def use(**texts):
        folder = tmp_path / "own" / "domain"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            suffix = ".md" if name == "page" else ".yaml"
            (folder / f"{name}{suffix}").write_text(text, encoding="utf-8")
        conf_folders.use(str(folder.parent))

    yield use
    conf_folders.use(None)


def test_a_stage_runs_again_only_for_what_it_uses(data):
    def names(*words):
        cfg = compose_job([*data, *words])
        return {step: recipe_at(cfg, f"data.{step}").name for step in ("score", "ask", "screen")}

    first = names()
    assert names('domain.rubric="凡是菜谱"', "domain.categories=[cooking]") == first
    page = names('domain.qa_rubric="做得出来"')
    assert {step for step in first if page[step] != first[step]} == {"screen"}
    words = names('domain.prompt.qa="问一个问题"')
    assert {step for step in first if words[step] != first[step]} == {"ask", "screen"}
    for word in (
        "domain.topics.reform=[reform]",
        "domain.tiers.law=2",
        'domain.as_of="2020-01-31"',
    ):
        assert names(word)["score"] != first["score"]


def test_a_domain_has_its_words_categories_and_pages_and_may_leave_out_the_rest(data, own):
    page = "# 标准\n\n一、`${x}`；<script>\n"
    text = "rubric: page.md\ncategories: [家常菜]\nprompt: {qa: 问}\n"
    english = f"defaults:\n  - override /prompt@prompt: en\n{TOPICS}"
    own(cooking=TOPICS + text, english=english, page=f"\ufeff{page}")
    cfg = compose_job([*data, "domain=cooking"])
    assert cfg.prompt == PROMPTS["zh"] | {"qa": "问"}
    assert cfg.domain.rubric == page and cfg.domain.qa_rubric is None
    assert recipe_at(cfg, "rows.stage1").arguments["categories"] == ["家常菜"]
    assert recipe_at(cfg, "data.score").arguments["domain"]["tiers"] == {}
    assert compose_job([*data, "domain=cooking", "prompt=en"]).prompt == PROMPTS["en"]
    assert compose_job([*data, "domain=english"]).prompt == PROMPTS["en"]


def test_the_domains_of_ours(data):
    cfg = compose_job(data)
    assert "owners" in cfg.domain.topics and cfg.prompt == PROMPTS["zh"]
    assert cfg.domain.rubric.startswith("# Relevance to state-owned assets")
    assert compose_job([*data, "domain=none"]).domain.topics == {}


REFUSED = {
    "unknown": ("topcis: {}", "domain.topcis: is no setting; Did you mean topics"),
    "target": ("_target_: soaes.x", "domain._target_: is no setting"),
    "tier": ("tiers: {web: 6}", "domain.tiers.web=6: must be a whole number from 1 to 5"),
    "no-tiers": ("tiers:", "domain.tiers=null: must be entries"),
    "empty-topic": ("topics: {heat: []}", "domain.topics.heat=.*: must be a list of terms"),
    "term": ("topics: {heat: 大火}", "domain.topics.heat=大火: must be a list of terms"),
    "date": ("as_of: soon", "domain.as_of=soon: must be a date"),
    "category": ("categories: 家常菜", "domain.categories=家常菜: must be a list"),
    "prompt": ("prompt: {questions: 问}", "domain.prompt.questions: is no setting"),
    "no-prompt": ("prompt:", "domain.prompt=None: must have language"),
    "language": ("prompt: {language: fr}", "prompt.language=fr: must be one of"),
    "no-words": ("prompt: {qa: ''}", "prompt.qa=: must be text"),
    "no-page": ("rubric: gone.md", "domain.rubric=gone.md: there is no such file .*conf/domain"),
    "elsewhere": ("rubric: ../gone.md", "domain.rubric=../gone.md: there is no such file"),
    "no-rubric": ("rubric: ''", "domain.rubric=: must be text"),
    "long-rubric": (f"rubric: {'长' * 50_001}", "domain.rubric: has 50,001 characters.*50,000"),
    "rubric-list": ("qa_rubric: [a]", "domain.qa_rubric=.*: must be text"),
    "reference": ("rubric: ${nothing}", "domain: .*nothing.*; correct the domain"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_domain_is_refused_by_name(text, message):
    run = OmegaConf.load(conf_folders.CONF / "run.yaml")
    written = OmegaConf.merge(run.domain, {"prompt": PROMPTS["zh"]}, OmegaConf.create(text))
    with pytest.raises(ValueError, match=message):
        domains.settle(OmegaConf.create({"domain": written}))


@pytest.mark.parametrize("text", ["a ${b}", r"\${b} \\${c} \n \\", "\\\\\\${b", "$\\{b}"])
def test_a_page_stays_as_it_is_written(data, own, text):
    own(cooking="rubric: page.md\n", page=text)
    cfg = compose_job([*data, "domain=cooking"])
    assert cfg.domain.rubric == text
    assert recipe_at(cfg, "data.draw_passages").arguments["rubric"] == text


def test_a_page_in_another_encoding_is_refused_by_name(data, own, tmp_path):
    own(cooking="rubric: page.md\n", page="# 标准\n")
    page = tmp_path / "own" / "domain" / "page.md"
    page.write_bytes("# 标准\n".encode("gb18030"))
    with pytest.raises(ValueError, match="domain/page.md: is not UTF-8; save it"):
        sweep.jobs([*data, "domain=cooking", "goal=data.draw_passages"])


def test_an_empty_page_and_a_list_of_topics_are_refused(data, own):
    own(cooking="topics: [大火]\n")
    with pytest.raises(ValueError, match="domain/cooking.*Cannot merge DictConfig with ListConfig"):
        compose_job([*data, "domain=cooking"])
    own(cooking="rubric: page.md\n", page="\n")
    with pytest.raises(ValueError, match="page.md: is empty"):
        compose_job([*data, "domain=cooking"])
