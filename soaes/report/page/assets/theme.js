"use strict";
// Light or dark: as the reader's system has it, or as the reader chose.

function isDark() {
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Change from light to dark or back. */
function switchTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  prefer("theme", theme);
}

const theme = preferred("theme", "");
if (theme) document.documentElement.dataset.theme = theme;
