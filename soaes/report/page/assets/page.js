"use strict";
// The page as a whole: language, theme, sections.

const SECTIONS = {
  verdicts: () => [el("p", { class: "lead" }, say("verdictsText")), board()],
  tables: () => [el("p", { class: "lead" }, say("tablesText")), RECORD.tables.map(tableSection)],
  answers: () => [el("p", { class: "lead" }, say("answersText")), answersSection()],
  curves: () => [el("p", { class: "lead" }, say("curvesText")), curvesSection()],
  time: () => [el("p", { class: "lead" }, say("timeText")), timeSection()],
  failures: () => [el("p", { class: "lead" }, say("failuresText")), failuresSection()],
  data: () => [el("p", { class: "lead" }, say("dataText")), dataSection()],
};

/** Draw everything in the language of the page. */
function draw() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-words]")) {
    element.textContent = say(element.dataset.words);
  }
  const nav = document.getElementById("sections");
  nav.setAttribute("aria-label", say("sections"));
  nav.replaceChildren(
    ...Object.keys(SECTIONS).map((key) => el("a", { href: `#${key}` }, say(key))),
  );
  const sections = Object.entries(SECTIONS).map(([key, content]) =>
    el("section", { id: key, class: "part" }, el("h2", {}, say(key)), content()),
  );
  document.getElementById("main").replaceChildren(intro(), ...sections);
  drawSwitches();
}

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

// ---------------------------------------------------------------- switches

function isDark() {
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function drawSwitches() {
  document.getElementById("language").textContent = say("toLanguage");
  document.getElementById("theme").textContent = say(isDark() ? "toLight" : "toDark");
}

document.getElementById("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  prefer("language", language);
  draw();
});
document.getElementById("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  prefer("theme", theme);
  drawSwitches();
});
document.getElementById("panel").addEventListener("click", closeOnBackdrop);
document.getElementById("panel").addEventListener("close", leaveAddress);
addEventListener("hashchange", openAddress);

const theme = preferred("theme", "");
if (theme) document.documentElement.dataset.theme = theme;
draw();
openAddress();
