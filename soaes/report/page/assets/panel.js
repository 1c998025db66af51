"use strict";
// The panel of one cell: its numbers, where they come from, and what was answered.

/** Open the panel of a cell. */
function openCell(table, row, column) {
  const panel = document.getElementById("panel");
  const seeds = Object.keys(row.goals);
  const measured = Object.keys(row.cells[column.key].seeds);
  const draw = (seed) => panel.replaceChildren(...panelContent(table, row, column, seed, draw));
  draw(measured[0] || seeds[0] || "");
  if (!panel.open) panel.showModal();
  panel.scrollTop = 0;
  history.replaceState(null, "", `#${table.name}.${row.key}.${column.key}`);
}

/** Open the cell that the address names: `report.html#table2.full.rouge1`. */
function openAddress() {
  const parts = decodeURIComponent(location.hash.slice(1)).split(".");
  const [tableName, rowKey] = parts;
  const columnKey = parts.slice(2).join("."); // it may have dots of its own: draft.teacher_entropy
  const table = RECORD.tables.find((each) => each.name === tableName);
  const row = table?.rows.find((each) => each.key === rowKey);
  const columns = table ? [...table.columns, ...table.breakdown] : [];
  const column = columns.find((each) => each.key === columnKey);
  if (row && column) openCell(table, row, column);
}

/** Take the cell out of the address again. */
function leaveAddress() {
  history.replaceState(null, "", location.pathname + location.search);
}

/** Close on a click beside the panel; Escape is the browser's. */
function closeOnBackdrop(event) {
  const panel = event.currentTarget;
  if (event.target === panel) panel.close();
}

function panelContent(table, row, column, seed, draw) {
  const cell = row.cells[column.key];
  const goals = goalsOf(row, cell, seed);
  const seeds = Object.keys(row.goals);
  const close = () => document.getElementById("panel").close();
  return [
    el(
      "header",
      { class: "panel-top" },
      el(
        "div",
        {},
        el("p", { class: "muted" }, `${say(table.title)} · ${table.name}.${row.key}`),
        el("h2", { id: "panel-title" }, `${rowLabel(table, row)} — ${say(column.title)}`),
      ),
      el(
        "button",
        { type: "button", class: "close", "aria-label": say("close"), onclick: close },
        "✕",
      ),
    ),
    cellNumbers(cell),
    row.reason ? el("p", { class: "warning" }, row.reason) : null,
    seeds.length ? seedTable(row, cell) : null,
    seeds.length > 1
      ? dropDown(
          say("seed"),
          seeds.map((each) => [each, each]),
          seed,
          draw,
        )
      : null,
    Object.entries(goals).map(([role, name]) =>
      goalSection(role, name, otherRow(table, row, seed, role)),
    ),
  ]
    .flat(Infinity)
    .filter(Boolean);
}

function cellNumbers(cell) {
  const entry = (label, text) =>
    text ? el("div", {}, el("dt", {}, label), el("dd", {}, text)) : null;
  return el(
    "dl",
    { class: "numbers" },
    entry(say("ours"), say(cell.text)),
    entry(say("interval"), cell.low && `[${cell.low}, ${cell.high}]`),
    entry(say("paper"), cell.paper),
    entry(say("difference"), cell.difference),
  );
}

/** The goals of a row that a value comes from: the one that measured it; all if none did. */
function goalsOf(row, cell, seed) {
  const goals = Object.entries(row.goals[seed] || {});
  const source = cell.stages[seed];
  const isBehind = ([, name]) =>
    name === source || Object.values(RECORD.stages[name].parents).includes(source);
  const [first] = goals.filter(isBehind);
  return Object.fromEntries(first ? [first] : goals);
}

function seedTable(row, cell) {
  const lines = [];
  for (const [seed, goals] of Object.entries(row.goals)) {
    const source = cell.stages[seed];
    for (const name of source ? [source] : Object.values(goals)) {
      const stage = RECORD.stages[name];
      lines.push([
        seed,
        cell.seeds[seed] || "–",
        el("code", {}, name),
        say(stage.state),
        el("code", {}, stage.commit),
        stage.machine,
        stage.made.replace("T", " ").replace("Z", ""),
        stage.seconds ? stage.seconds.toLocaleString("en", { maximumFractionDigits: 1 }) : "",
      ]);
    }
  }
  const header = ["seed", "value", "measuredBy", "state", "commit", "machine", "made", "seconds"].map(
    say,
  );
  return [el("h3", {}, say("bySeed")), plainTable(header, lines, say("bySeed"))];
}

/** The command, the lineage and the answers of one goal. */
function goalSection(role, name, other) {
  const command = RECORD.commands[name];
  const [sheet] = sheetsOf(name);
  return [
    el("h3", {}, `${say("command")} (${role})`),
    commandLine(command),
    el("h3", {}, `${say("lineage")} (${role})`),
    el("p", { class: "muted" }, say("lineageText")),
    el("ul", { class: "lineage" }, lineage(name, "", new Set())),
    sheet
      ? [
          el("h3", {}, `${say("answers")} (${say(sheet.kind)})`),
          answersView(sheet, name, sheet.stages.includes(other) ? other : "", true),
        ]
      : null,
  ];
}

/** The row above in the table, or below the first: what the row is compared with at first. */
function otherRow(table, row, seed, role) {
  const names = table.rows.map((each) => each.goals[seed]?.[role]).filter(Boolean);
  const place = names.indexOf(row.goals[seed][role]);
  return names[place - 1] || names[place + 1] || "";
}

function commandLine(command) {
  const button = el("button", { type: "button" }, say("copy"));
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(command);
    button.textContent = say("copied");
  });
  return el("div", { class: "command" }, el("pre", {}, command), button);
}

/** One stage of the tree, and below it those that it reads; a stage is shown in full once. */
function lineage(name, role, seen) {
  const stage = RECORD.stages[name];
  const isRepeated = seen.has(name);
  seen.add(name);
  const title = [
    role ? el("span", { class: "muted" }, `${role}: `) : null,
    el("code", {}, name),
    stage.label ? ` ${stage.label}` : "",
    stage.state === "built" ? null : el("span", { class: "tag" }, say(stage.state)),
  ];
  if (isRepeated)
    return el("li", {}, title, el("span", { class: "muted" }, ` (${say("shownAbove")})`));
  const settings = Object.entries(stage.settings).flatMap(([key, value]) => [
    el("dt", {}, key),
    el("dd", {}, value),
  ]);
  const parents = Object.entries(stage.parents).map(([path, parent]) =>
    lineage(parent, path, seen),
  );
  return el(
    "li",
    {},
    el("details", {}, el("summary", {}, title), el("dl", { class: "settings" }, settings)),
    parents.length ? el("ul", {}, parents) : null,
  );
}
