"use strict";
// The steps, and what every rule did.

function stepsSection() {
  const whole = Math.max(1, RECORD.steps[0].characters.in);
  return el(
    "div",
    { class: "steps" },
    headRow("step", ["step", "", "documents", "characters", "tokens"]),
    RECORD.steps.map((step) => stepRow(step, whole)),
  );
}

/** The head of a list whose rows name their figures themselves on a narrow screen. */
function headRow(name, keys) {
  const cells = keys.map((key) => el("span", {}, key ? say(key) : ""));
  return el("div", { class: `${name} head`, "aria-hidden": "true" }, cells);
}

function namedFigure(key, text) {
  return el("span", { class: "figure" }, el("small", {}, `${say(key)} `), text);
}

function stepRow(step, whole) {
  const { documents, characters, tokens } = step;
  const taken = Math.max(0, characters.in - characters.out);
  const settings = Object.entries(step.settings);
  return el(
    "details",
    {},
    el(
      "summary",
      { class: "step" },
      el("b", {}, named(step.step)),
      bar([characters.out / whole, "kept"], [taken / whole, "taken"]),
      namedFigure("documents", fromTo(documents.in, documents.out)),
      namedFigure("characters", fromTo(characters.in, characters.out)),
      namedFigure("tokens", fromTo(tokens.in, tokens.out)),
    ),
    el(
      "dl",
      { class: "settings" },
      [
        [say("rejected"), number(step.records_rejected)],
        ...settings,
        [say("seconds"), number(Math.round(step.seconds))],
        [say("folder"), step.folder],
      ].flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, el("code", {}, value))]),
    ),
  );
}

// ---------------------------------------------------------------- warnings

const WARNINGS_AT_FIRST = 8;

/** A line for each rule and origin of which it takes much. */
function warningList() {
  const lines = new Map();
  for (const warning of RECORD.warnings) {
    const key = JSON.stringify([warning.step, warning.rule, warning.origin]);
    lines.set(key, [...(lines.get(key) || []), warning]);
  }
  return longList([...lines.values()], WARNINGS_AT_FIRST, warningLine);
}

function warningLine(warnings) {
  const { rule, origin } = warnings[0];
  const shares = warnings.flatMap(({ unit, share }, place) => [
    place ? ` ${say("and")} ` : "",
    ...(language === "zh"
      ? [`${named(unit)} `, el("b", {}, percent(share))]
      : [el("b", {}, percent(share)), ` of the ${unit}`]),
  ]);
  return el(
    "p",
    {},
    el("b", {}, named(rule)),
    language === "zh" ? "：去除 " : " takes ",
    language === "zh" ? [el("bdi", {}, origin), " 的 "] : null,
    shares,
    language === "zh" ? null : [" of ", el("bdi", {}, origin)],
  );
}

// ---------------------------------------------------------------- rules

function rulesSection() {
  const rules = RECORD.steps.flatMap((step) => step.rules.map((rule) => ({ step, ...rule })));
  const idle = RECORD.steps.flatMap((step) => step.idle);
  return [
    rules.length
      ? el(
          "div",
          { class: "rules" },
          headRow("rule", ["rule", "effect", "taken", "ofStep"]),
          rules.map(ruleRow),
        )
      : el("p", {}, say("noRules")),
    idle.length
      ? el(
          "p",
          { class: "muted" },
          `${say("idle")} ${idle.map(named).join(say("comma"))}`,
        )
      : null,
  ];
}

function ruleRow(rule) {
  const share = Math.max(0, rule.characters) / Math.max(1, rule.step.characters.in);
  const counts = [
    ["changed", rule.documents_changed],
    ["dropped", rule.documents_dropped],
    ["rejected", rule.records_rejected],
  ].filter(([, count]) => count);
  const isWarned = RECORD.warnings.some(
    (warning) => warning.rule === rule.rule && warning.step === rule.step.step,
  );
  return el(
    "details",
    {},
    el(
      "summary",
      { class: "rule" },
      el(
        "span",
        {},
        el("b", {}, named(rule.rule)),
        el("span", { class: "tag" }, named(rule.step.step)),
        isWarned ? el("span", { class: "tag lost" }, `▲ ${say("warned")}`) : null,
      ),
      el("span", {}, counts.map(([key, count]) => `${number(count)} ${say(key)}`).join(" · ")),
      namedFigure("taken", number(rule.characters)),
      namedFigure("ofStep", percent(share)),
    ),
    rule.samples.length ? sampleList(rule.samples) : null,
    rule.documents_dropped || rule.records_rejected
      ? el("p", {}, el("a", { href: "#drops", onclick: () => showDrops(rule) }, say("toDrops")))
      : null,
  );
}

function sampleList(samples) {
  return el(
    "ol",
    { class: "samples" },
    samples.map((sample) =>
      el(
        "li",
        {},
        el("code", {}, sample.source),
        el(
          "div",
          { class: "twin" },
          el(
            "div",
            {},
            el("small", {}, say("before")),
            el("p", { class: "text" }, marks(sample.before, "removed")),
          ),
          el(
            "div",
            {},
            el("small", {}, say("after")),
            el("p", { class: "text" }, marks(sample.after, "added")),
          ),
        ),
      ),
    ),
  );
}
