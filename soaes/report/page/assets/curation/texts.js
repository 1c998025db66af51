"use strict";
// Texts of documents, with what differs marked, and numbers.

const NAMES_OF_BLANKS = { " ": "␣", "\n": "⏎\n", "\t": "⇥", "\u3000": "□" };

/** A number with separators: 1,234. */
function number(value) {
  return value.toLocaleString("en");
}

/** A share of 1 as per cent: 0.3 %, below 0.1 % or none. */
function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(1)} %`;
}

/** A text in which blanks and characters that have no shape are seen. */
function visible(text) {
  return text
    .replace(/[ \n\t\u3000]/g, (blank) => NAMES_OF_BLANKS[blank])
    .replace(/[\p{Cc}\p{Cf}\p{Zs}\p{Zl}\p{Zp}\p{Co}\p{Cs}]/gu, (sign) =>
      sign === "\n" ? sign : `⟨${codePoint(sign)}⟩`,
    );
}

function codePoint(sign) {
  return `U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

/** Pieces, [text, differs], as text in which those that differ are marked. */
function marks(pieces, className) {
  return pieces.map(([text, differs]) =>
    differs ? el("mark", { class: className, title: signs(text) }, visible(text)) : text,
  );
}

/** Pieces without the line breaks at their ends, which say nothing there. */
function trimmed(pieces) {
  const last = pieces.at(-1);
  return last && !last[1] ? [...pieces.slice(0, -1), [last[0].trimEnd(), false]] : pieces;
}

/** The code points of a short text, since some characters look alike. */
function signs(text) {
  const all = Array.from(text);
  return all.length <= 4 ? all.map(codePoint).join(" ") : null;
}

// Names of rules that hold a word of the data or a number.
const RULE_PATTERNS = [
  [/^boilerplate: (.*)$/s, "boilerplate"],
  [/^holds a question of (.*)$/s, "holdsQuestion"],
  [/^shorter than (\d+) characters$/, "shorter"],
];

/** The name of a step, rule or topic in the language of the page. */
function named(name) {
  if (language !== "zh") return name;
  for (const [pattern, key] of RULE_PATTERNS) {
    const [, part] = name.match(pattern) || [];
    if (part !== undefined) return say(key).replace("…", () => inChinese(part));
  }
  return inChinese(name);
}

/** A name in Chinese, or itself: it may be any word, as `constructor`. */
function inChinese(name) {
  return Object.hasOwn(CHINESE, name) ? CHINESE[name] : name;
}

/** A bar of parts: [share of its whole width, class]. */
function bar(...parts) {
  const spans = parts
    .filter(([share]) => share > 0)
    .map(([share, name]) => el("span", { class: name, style: `width: ${100 * share}%` }));
  return el("span", { class: "partbar", "aria-hidden": "true" }, spans);
}

/** Two numbers of which the second is what is left: 598 → 594. */
function fromTo(from, to) {
  return from === to ? number(to) : `${number(from)} → ${number(to)}`;
}

/** What is said of a document: its title, and below where it is from. */
function documentHead(document, ...more) {
  const facts = [document.date, `${number(document.length)} ${say("characters")}`, ...more];
  return el(
    "div",
    { class: "document" },
    document.title ? el("b", {}, document.title) : null,
    el("code", {}, document.source),
    el("small", {}, facts.filter(Boolean).join(" · ")),
  );
}

/** A list that shows so many elements at first and more on demand. */
function longList(items, atFirst, element) {
  const box = el("div", { class: "list" });
  let shown = 0;
  const button = el("button", { type: "button", onclick: () => grow() }, say("more"));
  const grow = () => {
    const next = items.slice(shown, shown + atFirst).map(element);
    shown += next.length;
    box.append(...next);
    if (shown < items.length) box.append(button);
    else button.remove();
  };
  grow();
  return box;
}

/** A box that shows a block once it is unpacked. */
function unpackedBox(name, content) {
  const box = el("div", {}, el("p", { class: "muted" }, say("loading")));
  block(name).then((value) => box.replaceChildren(...[content(value)].flat(Infinity)));
  return box;
}
