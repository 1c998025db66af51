"use strict";
// The verdicts: a count of each, and a board of all claims.

const VERDICTS = ["holds", "fails", "undecided", "not measured"];
const MARKS = { holds: "✓", fails: "✕", undecided: "?", "not measured": "–" };

/** A claim with its tolerance: `CPT keeps general ability (margin 0.05)`. */
function sayClaim(text) {
  const [, claim, tolerance, number] = text.match(/^(.*?)(?: \((margin|within) ([^)]*)\))?$/s);
  return tolerance ? `${say(claim)} (${say(tolerance)} ${number})` : say(claim);
}

/** A verdict as a mark and a word, so that no colour is needed to tell it. */
function verdictMark(verdict) {
  const mark = el("span", { class: "mark", "aria-hidden": "true" }, MARKS[verdict]);
  return el("span", { class: "verdict", "data-verdict": verdict }, mark, say(verdict));
}

/** How many claims have each verdict, as a bar and in words. */
function verdictCounts() {
  const claims = RECORD.tables.flatMap((table) => table.claims);
  const counts = VERDICTS.map((verdict) => [
    verdict,
    claims.filter((claim) => claim.verdict === verdict).length,
  ]).filter(([, count]) => count > 0);
  const bar = counts.map(([verdict, count]) =>
    el("span", { "data-verdict": verdict, style: `flex-grow: ${count}` }),
  );
  const words = counts.map(([verdict, count]) =>
    el("li", {}, el("b", {}, String(count)), " ", verdictMark(verdict)),
  );
  return [
    el("div", { class: "countbar", "aria-hidden": "true" }, bar),
    el("ul", { class: "counts" }, words),
  ];
}

/** The board: a group for each table, a row for each claim, its pairs folded in it. */
function board() {
  const groups = RECORD.tables.filter((table) => table.claims.length);
  return groups.map((table) =>
    el(
      "section",
      { class: "claims" },
      el("h3", {}, el("a", { href: `#${table.name}` }, say(table.title))),
      table.claims.map(claimRow),
    ),
  );
}

function claimRow(claim) {
  const pair = claim.pairs[claim.weakest];
  const extent = extentOf(claim.pairs);
  return el(
    "details",
    { class: "claim" },
    el(
      "summary",
      {},
      verdictMark(claim.verdict),
      el("span", { class: "key" }, claim.claim),
      el("span", { class: "text" }, sayClaim(claim.text)),
      intervalChart(pair, extentOf([pair])),
      effectTexts(pair),
    ),
    el(
      "ul",
      { class: "pairs" },
      claim.pairs.map((each) => pairItem(each, extent)),
    ),
    claim.also.map((other) =>
      el(
        "p",
        { class: "also" },
        `${say("beside")} ${other.metric}: `,
        verdictMark(other.verdict),
        ` ${other.pair.text}: ${effectWords(other.pair)}`,
      ),
    ),
  );
}

function pairItem(pair, extent) {
  return el(
    "li",
    {},
    verdictMark(pair.verdict),
    el("code", { class: "text" }, pair.text),
    intervalChart(pair, extent),
    effectTexts(pair),
  );
}

function effectTexts(pair) {
  return el(
    "span",
    { class: "effect" },
    el("span", {}, effectWords(pair)),
    el("span", { class: "muted" }, `${say("paper")} ${pair.paper_effect}`),
  );
}

/** The effect as the Markdown has it; only its words are translated. */
function effectWords(pair) {
  return pair.effect
    .replace("not measured", say("not measured"))
    .replace("no interval", say("noInterval"));
}
