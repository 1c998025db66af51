"use strict";
// The page of a curation as a whole.

const SECTIONS = {
  steps: stepsSection,
  rules: rulesSection,
  duplicates: duplicatesSection,
  contamination: contaminationSection,
  selection: selectionSection,
  shares: sharesSection,
  lengths: lengthsSection,
  drops: dropsSection,
  data: dataSection,
};

function intro() {
  const [first, last] = [RECORD.steps[0], RECORD.steps.at(-1)];
  const facts = [
    ["documents", fromTo(first.documents.in, last.documents.out)],
    ["characters", fromTo(first.characters.in, last.characters.out)],
    ["estimated", fromTo(first.tokens.in, last.tokens.out)],
    ["newest", RECORD.made.replace("T", " ").replace("Z", " UTC")],
    ["inStore", RECORD.name],
  ];
  const unbuilt = RECORD.unbuilt.map(stageName).join(say("comma"));
  return el(
    "section",
    { class: "intro" },
    el("h1", {}, say("title")),
    factList(facts),
    wholeBar(first.characters.in),
    unbuilt ? el("p", { class: "warning" }, `${say("partial")} ${unbuilt}`) : null,
    RECORD.warnings.length ? el("div", { class: "warnings" }, warningList()) : null,
    el("p", { class: "muted" }, say("tokensText").replace("…", RECORD.characters_per_token)),
  );
}

function stageName(stage) {
  return stage === "files" ? say("dataFolder") : named(stage);
}

/** What became of all characters: kept, removed by cleaning, dropped by each step. */
function wholeBar(whole) {
  const kept = RECORD.steps.at(-1).characters.out;
  const removed = RECORD.steps.reduce((sum, step) => sum + step.characters.removed, 0);
  const parts = [
    ["kept", say("keptCharacters"), kept],
    ["removed", say("removedCharacters"), removed],
    ...RECORD.steps.map((step) => [
      "taken",
      say("dropped") + say("colon") + named(step.step),
      step.characters.dropped,
    ]),
  ].filter(([, , count]) => count > 0);
  return [
    bar(...parts.map(([name, , count]) => [count / Math.max(1, whole), name])),
    colourLegend(
      ...parts.map(([name, text, count]) => [
        name,
        `${text} ${percent(count / Math.max(1, whole))}`,
      ]),
    ),
  ];
}

/** What the data folder has of each kind of data. */
function dataSection() {
  const kinds = Object.entries(RECORD.kinds);
  if (!kinds.length) return el("p", {}, say("noData"));
  const rows = kinds.map(([kind, counts]) => {
    const dropped = Object.entries(counts.dropped || {}).map(
      ([reason, count]) => `${number(count)} ${named(reason)}`,
    );
    return [el("code", {}, kind), counts.files, counts.kept, dropped.join(say("semicolon")) || "–"];
  });
  const header = [say("kind"), say("files"), say("kept"), say("droppedBecause")];
  return [
    plainTable(header, rows, say("data")),
    RECORD.problems_total
      ? el(
          "details",
          { class: "remarks" },
          el("summary", {}, `${number(RECORD.problems_total)} ${say("problems")}`),
          RECORD.problems.map((problem) => el("p", {}, problem)),
        )
      : null,
  ];
}

draw();
