"use strict";
// The frame of every page: its sections, language and theme. A page defines `SECTIONS`, which makes
// the content of each section by its key, and `intro`, and calls `draw` at the end. Of each section
// WORDS has the heading under the key, and what it shows under the key with `Text`.

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
    el(
      "section",
      { id: key, class: "part" },
      el("h2", {}, say(key)),
      el("p", { class: "lead" }, say(`${key}Text`)),
      content(),
    ),
  );
  document.getElementById("main").replaceChildren(intro(), ...sections);
  drawSwitches();
}

// ---------------------------------------------------------------- switches

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
  switchTheme();
  drawSwitches();
});
