"""From documents to scores, and from scores to the documents that are trained on."""

import json

import pytest

from soaes.data.curation import sources
from soaes.data.curation.document import SourceDocument, curated, read_accounts, read_documents
from soaes.data.curation.passages import fingerprint
from soaes.data.curation.settings import DomainSettings, SelectionSettings
from soaes.stages import corpus, labelling

DOMAIN = DomainSettings(
    topics={"assets": ["国有资产"], "owners": ["国资委"]}, tiers={"law": 1, "press": 4}
)
ABOUT = "出资人委派董事，产权转让应当评估，企业领导人员的任免由其决定。"
OTHER = "蛋糕放进烤箱烤二十分钟，车辆应当靠右行驶，疫苗应当按时接种。"


def document(number, text, origin, kind="corpus", **fields):
    file = f"{kind}/{origin}/{number}.md"
    return curated(kind, file, SourceDocument(text, file, **fields))


@pytest.fixture
def parent(tmp_path):
    """Documents of laws, of the press, of an expert and of general text."""
    documents = []
    for number in range(30):
        about = f"第{number}条 {ABOUT * 5}\n第{number}款 {ABOUT * 6}"
        other = f"第{number}条 {OTHER * 5}\n第{number}款 {OTHER * 6}"
        documents.append(document(number, about, "law", title=f"第{number}法"))
        documents.append(document(number, other, "press", date=f"20{number:02}-01-01"))
    documents.append(document(0, OTHER, "expert"))
    documents.append(document(0, OTHER + "《第3法》", "texts", kind="general"))
    return written(tmp_path / "parent", documents)


def written(folder, documents):
    with corpus.StepOutput("parent", folder) as output:
        for each in documents:
            output.account.take(each)
            output.keep(each)
    return folder


def labels_of(folder, root):
    """A label for the first passage of every law and of every text of the press."""
    lines = []
    for each in read_documents(folder):
        if each["origin"] in ("law", "press"):
            letters, value = fingerprint(each["text"].split("\n")[0])
            label = {
                "source": each["source"],
                "letters": letters,
                "hash": f"{value:016x}",
                "label": int(each["origin"] == "law"),
                "probability": 0.5,
                "family": each["source"],  # the texts are near-duplicates
            }
            lines.append(json.dumps(label))
    path = root / "labels" / "all.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines), encoding="utf-8")


def scored(parent, root, out, domain=DOMAIN):
    root.mkdir(exist_ok=True)
    digest = sources.digest(root, kinds=(sources.LABELS,))
    labels = out.with_name(f"labels of {out.name}")
    labelling.labels(parent, digest, root=str(root), out=labels)
    corpus.score(parent, labels, domain=domain, out=out)
    return {each["source"]: each["scores"] for each in read_documents(out)}


def test_labels_score_what_no_topic_finds(parent, tmp_path):
    labels_of(parent, tmp_path / "root")
    scores = scored(parent, tmp_path / "root", tmp_path / "scored")
    laws = [scores[f"corpus/law/{number}.md"] for number in range(30)]
    press = [scores[f"corpus/press/{number}.md"] for number in range(30)]
    lowest = min(score["relevance"] for score in laws)
    assert lowest > 0.5 > max(score["relevance"] for score in press)
    assert {score["tier"] for score in laws} == {1} and {score["tier"] for score in press} == {4}
    assert [score["citations"] for score in laws].count(1) == 1 and laws[3]["citations"] == 1
    assert press[29]["importance"] > press[0]["importance"]
    report = json.loads((tmp_path / "scored/scoring.json").read_text())
    assert (report["relevance_by"], report["labels_found"]) == ("labels", 60)
    assert report["as_of"] == "2029-01-01"
    assert report["documents_by_tier"] == {"1": 31, "4": 30}
    judged = corpus.read_jsonl(tmp_path / "scored" / corpus.JUDGED)
    assert len(judged) == 60 and {row["weight"] for row in judged} == {2.0}

    by_topics = scored(parent, tmp_path / "bare", tmp_path / "by_topics")
    assert {score["relevance"] for score in by_topics.values()} == {0.0}
    none = DomainSettings(topics={}, tiers={})
    without = scored(parent, tmp_path / "bare", tmp_path / "without", none)
    assert not any("relevance" in score for score in without.values())


def test_a_text_that_says_when_it_was_passed_is_as_recent_as_that(tmp_path):
    texts = ["2003年12月29日通过", "2023年12月29日修订", "2023年2月30日修订"]
    laws = [document(n, f"某法\n{text}\n第一条 {ABOUT}", "law") for n, text in enumerate(texts)]
    scores = scored(written(tmp_path / "in", laws), tmp_path / "root", tmp_path / "out")
    assert [score["recency"] for score in scores.values()] == [0.5, 1.0, 0.5]
    assert json.loads((tmp_path / "out/scoring.json").read_text())["as_of"] == "2023-12-29"


def test_nothing_is_dropped_unless_asked_and_every_drop_says_why(parent, tmp_path):
    scored(parent, tmp_path / "root", tmp_path / "scored")

    def selected(name, **settings):
        out = tmp_path / name
        corpus.select(tmp_path / "scored", selection=SelectionSettings(**settings), out=out)
        drops = corpus.read_jsonl(out / "drops.jsonl")
        return [each["source"] for each in read_documents(out)], [drop["rule"] for drop in drops]

    everything = [each["source"] for each in read_documents(parent)]
    assert selected("all") == (everything, [])
    kept, rules = selected("credible", lowest_tier=3)
    assert rules == ["tier of the source"] * 30
    assert kept == [source for source in everything if "press" not in source]
    kept, rules = selected("threshold", threshold=0.5)
    assert kept == ["corpus/expert/0.md", "general/texts/0.md"]
    assert read_accounts(tmp_path / "threshold")[-1]["documents"]["dropped"] == 60
    kept, rules = selected("budget", budget=600, max_origin_share=0.9)
    tokens = json.loads((tmp_path / "budget/metrics.json").read_text())["tokens"]
    assert kept[-2:] == ["corpus/expert/0.md", "general/texts/0.md"] and 400 < tokens < 640
    in_corpus = [each for each in read_documents(tmp_path / "budget") if each["kind"] == "corpus"]
    assert tokens == sum(SelectionSettings().tokens(each["text"]) for each in in_corpus)
    assert set(rules) == {"beyond the token budget"}


def test_a_threshold_needs_scores(parent, tmp_path):
    scored(parent, tmp_path / "root", tmp_path / "scored", DomainSettings({}, {}))
    with pytest.raises(ValueError, match="threshold=0.5: no document has a relevance; give domain"):
        settings = SelectionSettings(threshold=0.5)
        corpus.select(tmp_path / "scored", selection=settings, out=tmp_path / "out")


def test_a_saved_scorer_scores_alike(parent, tmp_path):
    labels_of(parent, tmp_path / "root")
    scores = scored(parent, tmp_path / "root", tmp_path / "scored")
    loaded = corpus.relevance.load(tmp_path / "scored" / corpus.relevance.SCORER)
    first = next(read_documents(parent))
    assert loaded.document(first["text"]) == pytest.approx(scores[first["source"]]["relevance"])
    again = scored(parent, tmp_path / "root", tmp_path / "again")
    names = sorted(path.name for path in (tmp_path / "scored").rglob("*") if path.is_file())
    assert scores == again and "weights.npy" in names
    for path in (tmp_path / "scored").rglob("*"):
        if path.is_file():
            other = tmp_path / "again" / path.relative_to(tmp_path / "scored")
            assert path.read_bytes() == other.read_bytes(), path.name
