"use strict";
// The page as a whole.

const SECTIONS = {
  verdicts: board,
  tables: () => RECORD.tables.map(tableSection),
  answers: answersSection,
  curves: curvesSection,
  time: timeSection,
  failures: failuresSection,
  data: dataSection,
};

function intro() {
  const stages = Object.values(RECORD.stages).filter((stage) => stage.state === "built");
  const distinct = (key) => [...new Set(stages.map((stage) => stage[key]))].join(", ") || "–";
  const facts = [
    ["scale", RECORD.scale],
    ["seeds", RECORD.seeds.join(", ")],
    ["stages", `${stages.length} / ${Object.keys(RECORD.stages).length}`],
    ["commit", distinct("commit")],
    ["machine", distinct("machine")],
    ["newest", RECORD.made.replace("T", " ").replace("Z", " UTC") || "–"],
  ];
  return el(
    "section",
    { class: "intro" },
    el("h1", {}, say("title")),
    el(
      "dl",
      { class: "facts" },
      facts.map(([key, text]) => el("div", {}, el("dt", {}, say(key)), el("dd", {}, text))),
    ),
    verdictCounts(),
  );
}

document.body.append(
  el("dialog", {
    id: "panel",
    "aria-labelledby": "panel-title",
    onclick: closeOnBackdrop,
    onclose: leaveAddress,
  }),
);
addEventListener("hashchange", openAddress);
draw();
openAddress();
