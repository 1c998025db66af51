"use strict";
// Near-duplicates side by side, contamination, and all that was dropped.

const PAIRS_AT_FIRST = 4;
const DROPS_AT_FIRST = 20;

function duplicatesSection() {
  if (!RECORD.pairs_total) return el("p", {}, say("noDuplicates"));
  return unpackedBox("pairs", (pairs) => [
    el(
      "p",
      { class: "muted", role: "status" },
      `${number(pairs.length)} / ${number(RECORD.pairs_total)} ${say("documents")}`,
      pairs.length < RECORD.pairs_total ? ` · ${say("exactToo")}` : null,
    ),
    longList(pairs, PAIRS_AT_FIRST, pairCard),
  ]);
}

function pairCard(pair) {
  const { rows, more, cut } = pair.comparison;
  const similarity =
    pair.similarity == null ? "" : `${say("similarity")} ${pair.similarity.toFixed(3)}`;
  return el(
    "article",
    { class: "question pair" },
    el(
      "header",
      {},
      el("span", { class: "tag" }, named(pair.rule)),
      el("span", { class: "tag" }, similarity),
    ),
    el(
      "div",
      { class: "twin" },
      el(
        "div",
        {},
        el("small", { class: "lost" }, say("droppedDocument")),
        documentHead(pair.dropped),
      ),
      el("div", {}, el("small", { class: "gained" }, say("keptDocument")), documentHead(pair.kept)),
    ),
    cut || rows.some((row) => row.left)
      ? null
      : el("p", { class: "muted" }, say("equalTexts")),
    rows.map(pairRow),
    more ? el("p", { class: "muted" }, `${number(more)} ${say("moreDifferences")}`) : null,
    cut ? el("p", { class: "muted" }, say("onlyBeginnings")) : null,
  );
}

function pairRow(row) {
  if (row.skipped != null) {
    return el("p", { class: "skipped" }, `⋯ ${number(row.skipped)} ${say("equalCharacters")} ⋯`);
  }
  if (row.same != null) {
    return row.same.trim() ? el("p", { class: "text same" }, row.same.trim()) : null;
  }
  return el(
    "div",
    { class: "twin" },
    el("p", { class: "text" }, marks(trimmed(row.left), "removed")),
    el("p", { class: "text" }, marks(trimmed(row.right), "added")),
  );
}

// ---------------------------------------------------------------- contamination

function contaminationSection() {
  const others = Object.entries(RECORD.kinds).flatMap(([kind, counts]) =>
    Object.entries(counts.dropped || {})
      .filter(([reason]) => reason.startsWith("holds a question of ") && !isDocument(kind))
      .map(([reason, count]) => kind + say("colon") + `${number(count)} ${named(reason)}`),
  );
  return [
    RECORD.contamination_total
      ? unpackedBox("contamination", (found) => [
          el(
            "p",
            { class: "muted", role: "status" },
            `${number(found.length)} / ${number(RECORD.contamination_total)} ${say("documents")}`,
          ),
          longList(found, DROPS_AT_FIRST, contaminationCard),
        ])
      : el("p", {}, say("noContamination")),
    others.length ? el("p", {}, `${say("alsoLeftOut")} ${others.join(say("semicolon"))}`) : null,
  ];
}

function isDocument(kind) {
  return kind === "corpus" || kind === "general";
}

function contaminationCard(found) {
  const { before, match, after } = found.passage;
  return el(
    "article",
    { class: "question" },
    el("header", {}, el("span", { class: "tag lost" }, named(found.rule))),
    el("p", { class: "asked" }, found.stem),
    el("p", { class: "text" }, "…", before, el("mark", {}, match), after, "…"),
    el(
      "div",
      { class: "document" },
      found.title ? el("b", {}, found.title) : null,
      el("code", {}, found.source),
    ),
  );
}

// ---------------------------------------------------------------- drops

let chosenDrops = 0; // place of the list that is shown

function dropsSection() {
  if (!RECORD.drops.length) return el("p", {}, say("noDrops"));
  const box = el("div", { id: "drop-list" });
  drawDrops(box);
  return box;
}

/** Show what a rule dropped. */
function showDrops(rule) {
  chosenDrops = RECORD.drops.findIndex(
    (list) => list.rule === rule.rule && list.step === rule.step.step,
  );
  drawDrops(document.getElementById("drop-list"));
}

function drawDrops(box) {
  const options = RECORD.drops.map((list, place) => [
    place,
    `${named(list.step)}${say("colon")}${named(list.rule)} (${number(list.total)})`,
  ]);
  const choose = (value) => {
    chosenDrops = Number(value);
    drawDrops(box);
    box.querySelector("select").focus();
  };
  const choice = dropDown(say("rule"), options, chosenDrops, choose);
  const { step, total } = RECORD.drops[chosenDrops];
  const folder = RECORD.steps.find((each) => each.step === step).folder;
  box.replaceChildren(
    el("div", { class: "fields" }, choice),
    unpackedBox("drops", (lists) => {
      const { shown } = lists[chosenDrops];
      return [
        el(
          "p",
          { class: "muted", role: "status" },
          `${number(shown.length)} / ${number(total)} ${say("listed")} `,
          el("code", {}, `${folder}/drops.jsonl`),
        ),
        longList(shown, DROPS_AT_FIRST, dropCard),
      ];
    }),
  );
}

function dropCard(drop) {
  const keeper = drop.keeper ? say("standsFor") + say("colon") + drop.keeper : "";
  const similarity =
    drop.similarity == null ? "" : `${say("similarity")} ${drop.similarity.toFixed(3)}`;
  const { document } = drop;
  return el(
    "article",
    { class: "question" },
    document ? documentHead(document, similarity) : el("code", {}, drop.source),
    [drop.detail, keeper].filter(Boolean).map((line) => el("p", { class: "detail" }, line)),
    document?.text
      ? el("p", { class: "text" }, beginning(document))
      : null,
  );
}

/** The beginning of a text, without its blank lines. */
function beginning(document) {
  const isWhole = document.length <= document.text.length;
  return document.text.replace(/\n\s*\n/g, "\n") + (isWhole ? "" : "…");
}
