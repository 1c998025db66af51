"use strict";
// The tables: every cell is a button that opens where it comes from.

/** The label of a row with its settings: `Base 3x96 + distillation, alpha = 0.5`. */
function rowLabel(table, row) {
  const settings = table.settings
    .map((title, index) => `${title} = ${row.settings[index]}`)
    .filter((_, index) => row.settings[index] !== "-");
  return [row.label, ...settings].join(", ");
}

/** Of each goal the first row that shows it: name -> label. */
const GOAL_LABELS = new Map();
for (const table of RECORD.tables) {
  for (const row of table.rows) {
    for (const ofSeed of Object.values(row.goals)) {
      for (const name of Object.values(ofSeed)) {
        const label = `${table.name}.${row.key}: ${rowLabel(table, row)}`;
        if (!GOAL_LABELS.has(name)) GOAL_LABELS.set(name, label);
      }
    }
  }
}

/** One table with its picture, its breakdown and what is said of it. */
function tableSection(table) {
  return el(
    "section",
    { class: "table", id: table.name },
    el("h3", {}, say(table.title)),
    el("p", { class: "asks" }, say(table.asks)),
    cellTable(table, table.columns, say(table.title)),
    table.breakdown.length
      ? [
          el("h4", {}, say("breakdown")),
          cellTable(table, table.breakdown, `${say(table.title)}: ${say("breakdown")}`),
        ]
      : null,
    pictureOf(table),
    remarks("reading", table.reading ? table.reading.split("\n\n") : []),
    remarks("notes", table.notes),
    remarks("origin", table.origin),
  );
}

function remarks(key, lines) {
  if (!lines.length) return null;
  const body = lines.map((line) => el("p", {}, line));
  return el("details", { class: "remarks" }, el("summary", {}, say(key)), body);
}

/** The rows of a table in some of its columns. One tab stop; arrows move between cells. */
function cellTable(table, columns, caption) {
  const header = [
    say("model"),
    ...table.settings.map(say),
    ...columns.map((column) => say(column.title)),
  ];
  const head = el(
    "tr",
    {},
    header.map((text) => el("th", { scope: "col" }, text)),
  );
  const body = table.rows.map((row) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, row.label),
      row.settings.map((setting) => el("td", {}, setting)),
      columns.map((column) => el("td", {}, cellButton(table, row, column))),
    ),
  );
  const element = el(
    "table",
    { class: "cells", onkeydown: moveBetweenCells },
    el("caption", { class: "hidden" }, caption),
    el("thead", {}, head),
    el("tbody", {}, body),
  );
  const first = element.querySelector("button");
  if (first) first.tabIndex = 0;
  const box = scrollable(element, caption);
  box.removeAttribute("tabindex"); // its cells are reached by keyboard
  return box;
}

function cellButton(table, row, column) {
  const cell = row.cells[column.key];
  const [value, half] = cell.text.split(" ±");
  return el(
    "button",
    {
      type: "button",
      class: cell.low || /\d/.test(value) ? "cell" : "cell missing",
      tabindex: -1,
      "aria-haspopup": "dialog",
      onclick: () => openCell(table, row, column),
    },
    el("span", { class: "hidden" }, `${row.label}, ${say(column.title)}: `),
    el("span", { class: "value" }, say(value), half ? el("small", {}, ` ±${half}`) : null),
    column.in_paper ? el("span", { class: "beside" }, besidePaper(cell)) : null,
  );
}

/** The paper's value and the difference: `43.08 (−2.1)`. */
function besidePaper(cell) {
  if (!cell.paper) return "–";
  const label = el("span", { class: "hidden" }, `; ${say("paper")} `);
  const difference = cell.difference ? ` (${cell.difference.replace("-", "−")})` : "";
  return [label, cell.paper + difference];
}

const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** Arrow keys move the table's one tab stop. */
function moveBetweenCells(event) {
  const move = MOVES[event.key];
  const button = event.target.closest("button.cell");
  if (!move || !button) return;
  const cell = button.closest("td");
  const row = event.currentTarget.tBodies[0].rows[cell.parentElement.sectionRowIndex + move[0]];
  const next = row?.cells[cell.cellIndex + move[1]]?.querySelector("button.cell");
  event.preventDefault();
  if (!next) return;
  button.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}
