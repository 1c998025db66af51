"use strict";
// The record of the page and its blocks.

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
