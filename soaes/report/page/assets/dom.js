"use strict";
// Elements from plain values. Text is always a text node: data is never markup.

/**
 * Make an element: `el("button", {type: "button", onclick: open}, "Open")`.
 * Children are elements, texts, or lists of them; null and false are left out.
 */
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child != null && child !== false) element.append(child);
  }
  return element;
}

/** Make an SVG element. */
function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A labelled drop-down; `options` are [value, text]. */
function dropDown(label, options, value, onChange) {
  const entries = options.map(([key, text]) =>
    el("option", { value: key, selected: String(key) === String(value) }, text),
  );
  const select = el("select", { onchange: () => onChange(select.value) }, entries);
  return el("label", { class: "field" }, el("span", {}, label), select);
}

/** A table: rows are lists of cells, each a text or an element; numbers stand to the right. */
function plainTable(header, rows, caption) {
  const head = header.map((text, place) => {
    const isNumber = rows.length > 0 && rows.every((cells) => isNumeric(cells[place]));
    return text ? el("th", { scope: "col", class: isNumber ? "number" : null }, text) : el("td");
  });
  const body = rows.map((cells) => el("tr", {}, cells.map(plainCell)));
  const table = el(
    "table",
    { class: "plain" },
    caption ? el("caption", { class: "hidden" }, caption) : null,
    el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, body),
  );
  return scrollable(table, caption || header.join(", "));
}

function plainCell(content) {
  const text = typeof content === "number" ? content.toLocaleString("en") : content;
  return el("td", { class: isNumeric(content) ? "number" : null }, text);
}

function isNumeric(content) {
  return typeof content === "number" || /^(–|[+-]?[\d,.]+( → [\d,.]+)?( ?%)?)$/.test(content);
}

/** A box in which something wide is scrolled, also by keyboard. */
function scrollable(content, label) {
  return el("div", { class: "scroll", role: "region", "aria-label": label, tabindex: 0 }, content);
}
