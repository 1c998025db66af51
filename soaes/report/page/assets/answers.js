"use strict";
// Answers question by question: a row beside the reference and beside another row.

const PAGE = 20; // questions shown at once

/** Sheets that hold the answers of a stage. */
function sheetsOf(stage) {
  return RECORD.sheets.filter((sheet) => sheet.stages.includes(stage));
}

/** The section: choose kind, seed and rows. */
function answersSection() {
  if (!RECORD.sheets.length) return el("p", {}, say("noAnswers"));
  const kinds = ["evaluate", "benchmark", "acceptance", "speed"].filter((kind) =>
    RECORD.sheets.some((sheet) => sheet.kind === kind),
  );
  const state = { sheet: RECORD.sheets.find((sheet) => sheet.kind === kinds[0]) };
  const box = el("div", {});
  const draw = () => {
    const sheet = state.sheet;
    const seeds = RECORD.sheets.filter((each) => each.kind === sheet.kind).map((each) => each.seed);
    const choose = (kind, seed) => {
      const ofKind = RECORD.sheets.filter((each) => each.kind === kind);
      state.sheet = ofKind.find((each) => String(each.seed) === String(seed)) || ofKind[0];
      draw();
    };
    box.replaceChildren(
      el(
        "div",
        { class: "fields" },
        dropDown(
          say("kind"),
          kinds.map((kind) => [kind, say(kind)]),
          sheet.kind,
          (kind) => choose(kind, sheet.seed),
        ),
        dropDown(
          say("seed"),
          seeds.map((seed) => [seed, seed]),
          sheet.seed,
          (seed) => choose(sheet.kind, seed),
        ),
      ),
      answersView(sheet, ...firstChoice(sheet)),
    );
  };
  draw();
  return box;
}

/** The last and the first row of the first table whose answers a sheet has. */
function firstChoice(sheet) {
  for (const table of RECORD.tables) {
    const names = table.rows.map((row) => Object.values(row.goals[sheet.seed] || {})).flat();
    const known = names.filter((name) => sheet.stages.includes(name));
    if (known.length > 1) return [known.at(-1), known[0]];
  }
  return [sheet.stages[0], ""];
}

/**
 * The answers of one sheet.
 * @param {object} index an entry of RECORD.sheets
 * @param {string} row the stage whose answers are read
 * @param {string} other the stage that they are compared with; empty for none
 * @param {boolean} fixed the row cannot be changed
 */
function answersView(index, row, other, fixed = false) {
  const state = {
    row,
    other,
    group: "",
    score: 0,
    low: "",
    high: "",
    change: "",
    order: "asked",
    shown: PAGE,
  };
  const controls = el("div", { class: "fields" });
  const list = el("div", { class: "questions" }, say("loading"));
  block(index.block).then((sheet) => {
    const set = (key, value) => {
      state[key] = value;
      if (key !== "shown") state.shown = PAGE;
      drawQuestions();
    };
    const drawQuestions = () => list.replaceChildren(...questionList(sheet, state, set));
    controls.append(...answerControls(sheet, state, set, fixed));
    drawQuestions();
  });
  return el("div", { class: "answers" }, controls, list);
}

function answerControls(sheet, state, set, fixed) {
  const rows = sheet.stages.map((stage) => [stage, GOAL_LABELS.get(stage) || stage]);
  const groups = [...new Set(sheet.questions.map((question) => question.group))];
  const number = (key, label) =>
    el(
      "label",
      { class: "field short" },
      el("span", {}, label),
      el("input", {
        type: "number",
        step: "any",
        oninput: (event) => set(key, event.target.value),
      }),
    );
  return [
    fixed ? null : dropDown(say("row"), rows, state.row, (value) => set("row", value)),
    dropDown(say("other"), [["", say("nothing")], ...rows], state.other, (value) =>
      set("other", value),
    ),
    dropDown(
      say("group"),
      [["", say("all")], ...groups.map((group) => [group, group])],
      state.group,
      (value) => set("group", value),
    ),
    dropDown(
      say("score"),
      sheet.scores.map((score, place) => [place, score]),
      state.score,
      (value) => set("score", Number(value)),
    ),
    number("low", say("from")),
    number("high", say("to")),
    dropDown(
      say("change"),
      [["", say("all")], ...["gained", "lost", "same"].map((key) => [key, say(key)])],
      state.change,
      (value) => set("change", value),
    ),
    dropDown(
      say("order"),
      ["asked", "lowest", "largest"].map((key) => [key, say(key)]),
      state.order,
      (value) => set("order", value),
    ),
  ].filter(Boolean);
}

/** What one question says of the chosen rows: scores, and the change from the other row. */
function judged(sheet, state, question) {
  const of = (stage) => {
    const place = sheet.stages.indexOf(stage);
    const text = question.texts[question.answers[place]];
    if (place < 0 || text === undefined) return null;
    const score = question.scores[place][state.score];
    const isCut = question.cut.includes(place);
    return { stage, text, score, scores: question.scores[place], isCut };
  };
  const [row, other] = [of(state.row), of(state.other)];
  const comparable = row && other && row.score != null && other.score != null;
  return { question, row, other, change: comparable ? row.score - other.score : null };
}

function matchesFilters(item, state) {
  if (state.group && item.question.group !== state.group) return false;
  const score = item.row ? item.row.score : null;
  if (state.low !== "" && !(score != null && score >= Number(state.low))) return false;
  if (state.high !== "" && !(score != null && score <= Number(state.high))) return false;
  if (!state.change) return true;
  if (item.change == null) return false;
  return { gained: item.change > 0, lost: item.change < 0, same: item.change === 0 }[state.change];
}

function questionList(sheet, state, set) {
  const all = sheet.questions.map((question) => judged(sheet, state, question));
  const items = all.filter((item) => item.row && matchesFilters(item, state));
  if (state.order === "lowest") items.sort((a, b) => a.row.score - b.row.score);
  if (state.order === "largest")
    items.sort((a, b) => Math.abs(b.change || 0) - Math.abs(a.change || 0));
  const count = (test) => items.filter((item) => item.change != null && test(item.change)).length;
  const gained = `${count((change) => change > 0)} ${say("gained")}`;
  const lost = `${count((change) => change < 0)} ${say("lost")}`;
  const changes = state.other ? say("semicolon") + gained + say("comma") + lost : "";
  const total = sheet.questions.length;
  return [
    el(
      "p",
      { class: "muted", role: "status" },
      `${items.length} / ${total} ${say("questionsShown")}${changes}`,
    ),
    ...items.slice(0, state.shown).map((item) => questionCard(sheet, item)),
    items.length > state.shown
      ? el(
          "button",
          { type: "button", onclick: () => set("shown", state.shown + PAGE) },
          say("more"),
        )
      : "",
  ];
}

function questionCard(sheet, item) {
  const { question, row, other, change } = item;
  return el(
    "article",
    { class: "question" },
    el(
      "header",
      {},
      el("span", { class: "tag" }, question.group),
      change
        ? el("span", { class: change > 0 ? "tag gained" : "tag lost" }, changeText(change))
        : null,
    ),
    el("p", { class: "asked" }, question.question),
    el(
      "p",
      { class: "answer reference" },
      el("b", {}, say("reference")),
      el("span", {}, question.reference),
    ),
    answerLine(sheet, row, question.reference),
    other ? answerLine(sheet, other, question.reference) : null,
  );
}

function changeText(change) {
  return `${change > 0 ? "▲ +" : "▼ −"}${Math.abs(change).toFixed(1)}`;
}

function answerLine(sheet, answer, reference) {
  const scores = sheet.scores
    .map((score, place) =>
      answer.scores[place] == null ? null : `${score} ${answer.scores[place]}`,
    )
    .filter(Boolean)
    .join(" · ");
  return el(
    "p",
    { class: "answer" },
    el("b", {}, (GOAL_LABELS.get(answer.stage) || answer.stage).split(":")[0]),
    el("span", {}, answer.text ? marked(answer.text, reference) : el("i", {}, say("empty"))),
    el("small", {}, scores, answer.isCut ? ` · ${say("cut")}` : ""),
  );
}
