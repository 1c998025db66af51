"use strict";
// The record of the page, its blocks, and look-ups in them.

const RECORD = JSON.parse(document.getElementById("record").textContent);
const unpacked = new Map();

/** Unpack a block once; returns a promise of its value. */
function block(name) {
  if (!unpacked.has(name)) unpacked.set(name, unpack(name));
  return unpacked.get(name);
}

async function unpack(name) {
  const text = atob(document.getElementById(name).textContent);
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

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
