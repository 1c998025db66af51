"use strict";
// Relevance and thresholds, sources and topics, lengths.

const PALE = "color-mix(in srgb, var(--muted) 35%, transparent)"; // of what was read

function selectionSection() {
  if (!RECORD.frontier.length) return el("p", {}, say("noScores"));
  const { scoring } = RECORD;
  const facts = [
    ["relevanceBy", named(scoring.relevance_by)],
    ["auc", scoring.auc_unseen_families?.toFixed(3)],
    ["labelsFound", scoring.labels ? fromTo(scoring.labels, scoring.labels_found) : null],
    ["asOf", scoring.as_of],
    ["threshold", RECORD.threshold ?? say("noThreshold")],
  ].filter(([, value]) => value != null && value !== "");
  const hasLabels = RECORD.num_judged > 0;
  return [
    factList(facts),
    el(
      "div",
      { class: "panels" },
      figure(say("relevanceOf"), relevanceChart()),
      figure(say("frontier"), hasLabels ? frontierChart() : tokensChart()),
    ),
    el(
      "p",
      { class: "muted" },
      hasLabels ? `${number(RECORD.num_judged)} ${say("judged")}` : say("noLabels"),
    ),
    frontierTable(),
  ];
}

function factList(facts) {
  return el(
    "dl",
    { class: "facts" },
    facts.map(([key, text]) => el("div", {}, el("dt", {}, say(key)), el("dd", {}, text))),
  );
}

function figure(caption, chart) {
  return el("figure", {}, el("figcaption", {}, caption), chart);
}

/** A legend of colours: [class, text]. */
function colourLegend(...entries) {
  return el(
    "ul",
    { class: "legend" },
    entries.map(([name, text]) => el("li", {}, el("span", { class: `swatch ${name}` }), text)),
  );
}

function readAndKept(first) {
  return colourLegend(["read", say(first)], ["kept", say("kept")]);
}

function relevanceChart() {
  const { scored, kept } = RECORD.relevance;
  const rows = scored.map((count, place) => ({
    low: place / scored.length,
    high: (place + 1) / scored.length,
    all: count,
    kept: kept[place],
  }));
  const text = (row) => {
    const place = `${row.low.toFixed(2)} – ${row.high.toFixed(2)}`;
    return `${place}: ${fromTo(row.all, row.kept)} ${say("documents")}`;
  };
  const chart = plot(say("relevance"), {
    width: chartWidth(560),
    height: 260,
    marginLeft: 46,
    marginBottom: 40,
    x: { label: say("relevance"), labelAnchor: "center", labelArrow: "none", domain: [0, 1] },
    y: { label: say("documents"), type: "sqrt", labelArrow: "none", grid: true, ticks: 5 },
    marks: [
      Plot.rectY(rows, { x1: "low", x2: "high", y: "all", fill: PALE, inset: 1 }),
      Plot.rectY(rows, { x1: "low", x2: "high", y: "kept", fill: "var(--accent)", inset: 1 }),
      thresholdRule(),
      Plot.ruleY([0], { stroke: "var(--muted)" }),
      Plot.tip(
        rows,
        Plot.pointerX({
          x: (row) => (row.low + row.high) / 2,
          y: "all",
          title: text,
          fontSize: 12,
        }),
      ),
    ],
  });
  return [readAndKept("scored"), chart];
}

function thresholdRule() {
  if (RECORD.threshold == null) return null;
  return Plot.ruleX([RECORD.threshold], { stroke: "var(--fails)", strokeDasharray: "4 3" });
}

/** Precision, recall and the share of tokens that each threshold keeps. */
function frontierChart() {
  const most = Math.max(1, ...RECORD.frontier.map((row) => row.tokens));
  const series = [
    ["precision", "var(--blue)", (row) => row.precision],
    ["recall", "var(--orange)", (row) => row.recall],
    ["tokensKept", "var(--green)", (row) => row.tokens / most],
  ];
  const points = series.flatMap(([key, colour, value]) =>
    RECORD.frontier
      .filter((row) => value(row) != null)
      .map((row) => ({ key, colour, x: row.threshold, y: 100 * value(row) })),
  );
  const text = (point) => `${say(point.key)} ${point.y.toFixed(1)} % (${point.x})`;
  const chart = plot(say("frontier"), {
    width: chartWidth(560),
    height: 260,
    marginLeft: 46,
    marginBottom: 40,
    x: { label: say("threshold"), labelAnchor: "center", labelArrow: "none" },
    y: { label: "%", labelArrow: "none", grid: true, domain: [0, 100], ticks: 5 },
    marks: [
      thresholdRule(),
      ...series.map(([key, colour]) =>
        Plot.lineY(
          points.filter((point) => point.key === key),
          { x: "x", y: "y", stroke: colour, strokeWidth: 2, marker: "circle" },
        ),
      ),
      Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: text, fontSize: 12 })),
    ],
  });
  const entries = series.map(([key]) => [key, say(key)]);
  return [colourLegend(...entries), chart];
}

/** The tokens that each threshold keeps, where nothing says how right it is. */
function tokensChart() {
  return plot(say("frontier"), {
    width: chartWidth(560),
    height: 260,
    marginLeft: 70,
    marginBottom: 40,
    x: { label: say("threshold"), labelAnchor: "center", labelArrow: "none" },
    y: { label: say("tokensKept"), labelArrow: "none", grid: true, zero: true, ticks: 5 },
    marks: [
      thresholdRule(),
      Plot.lineY(RECORD.frontier, {
        x: "threshold",
        y: "tokens",
        stroke: "var(--green)",
        strokeWidth: 2,
        marker: "circle",
      }),
    ],
  });
}

function frontierTable() {
  const share = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)} %`);
  const rows = RECORD.frontier.map((row) => [
    row.threshold.toFixed(2),
    row.documents,
    row.tokens,
    share(row.precision),
    share(row.recall),
    row.threshold === RECORD.threshold ? say("chosen") : "",
  ]);
  const header = ["threshold", "documents", "tokens", "precision", "recall"].map(say);
  return plainTable([...header, ""], rows, say("frontier"));
}

// ---------------------------------------------------------------- sources and topics

function sharesSection() {
  const allIn = Math.max(1, RECORD.steps[0].characters.in);
  const allOut = Math.max(1, RECORD.steps.at(-1).characters.out);
  const rows = RECORD.origins.map((origin) => [
    el("code", {}, origin.origin),
    origin.tier == null ? "–" : String(origin.tier),
    fromTo(origin.documents_in, origin.documents),
    fromTo(origin.characters_in, origin.characters),
    shareBars(origin.characters_in / allIn, origin.characters / allOut),
  ]);
  const header = [say("origin"), say("tier"), say("documents"), say("characters"), say("share")];
  return [
    readAndKept("read"),
    plainTable(header, rows, say("shares")),
    RECORD.more_origins
      ? el("p", { class: "muted" }, `${number(RECORD.more_origins)} ${say("moreOrigins")}`)
      : null,
    RECORD.topics.length ? topicTable() : null,
  ];
}

function shareBars(before, after) {
  const texts = [percent(before), percent(after)];
  const text = texts[0] === texts[1] ? texts[0] : texts.join(" → ");
  return el(
    "div",
    { class: "sharebars" },
    bar([before, "read"]),
    bar([after, "kept"]),
    el("small", {}, text),
  );
}

function topicTable() {
  const allIn = Math.max(1, RECORD.steps[0].documents.out);
  const allOut = Math.max(1, RECORD.steps.at(-1).documents.out);
  const rows = RECORD.topics.map((topic) => [
    named(topic.topic),
    fromTo(topic.read, topic.kept),
    shareBars(topic.read / allIn, topic.kept / allOut),
  ]);
  const header = [say("topic"), say("documents"), say("readAndKept")];
  return [el("h3", {}, say("topics")), plainTable(header, rows, say("topics"))];
}

// ---------------------------------------------------------------- lengths

function lengthsSection() {
  const [documents, characters] = [RECORD.lengths, RECORD.length_characters];
  const first = documents.read.findIndex((count) => count);
  const last = documents.read.findLastIndex((count) => count);
  const classes = RECORD.length_classes.map((low, place) => ({ low, place }));
  const shown = classes.slice(Math.max(0, first), last + 1);
  return [
    readAndKept("read"),
    el(
      "div",
      { class: "panels" },
      figure(say("documentsByLength"), lengthChart(shown, documents, "documents")),
      figure(say("textByLength"), lengthChart(shown, characters, "characters")),
    ),
  ];
}

const TICK_WIDTH = 38;

/** What was read and what is kept, by classes of length: all of it pale, what is kept in front. */
function lengthChart(classes, counts, unit) {
  const rows = classes.map(({ low, place }) => ({
    tick: `${shortNumber(low)}+`,
    read: counts.read[place],
    kept: counts.kept[place],
  }));
  const text = (row) => `${row.tick}: ${fromTo(row.read, row.kept)} ${say(unit)}`;
  return plot(say(unit), {
    width: chartWidth(560),
    height: 240,
    marginLeft: 52,
    marginBottom: 40,
    x: {
      label: say("length"),
      labelAnchor: "center",
      labelArrow: "none",
      domain: rows.map((row) => row.tick),
      ticks: everyFitting(rows.map((row) => row.tick)),
      tickSize: 0,
    },
    y: { label: say(unit), labelArrow: "none", grid: true, ticks: 5, tickFormat: "s" },
    marks: [
      Plot.barY(rows, { x: "tick", y: "read", fill: PALE, inset: 1 }),
      Plot.barY(rows, { x: "tick", y: "kept", fill: "var(--accent)", inset: 1 }),
      Plot.ruleY([0], { stroke: "var(--muted)" }),
      Plot.tip(rows, Plot.pointerX({ x: "tick", y: "read", title: text, fontSize: 12 })),
    ],
  });
}

/** Ticks of an axis, or every second or third where not all fit. */
function everyFitting(ticks) {
  const step = Math.ceil((ticks.length * TICK_WIDTH) / chartWidth(560));
  return ticks.filter((_, place) => place % step === 0);
}

/** 2,000 as 2k, so that many fit below an axis. */
function shortNumber(value) {
  return value >= 1000 ? `${value / 1000}k` : String(value);
}
