"use strict";
// What all charts that Observable Plot draws have in common.

/** A width in pixels that fits the screen. */
function chartWidth(most) {
  return Math.min(most, document.documentElement.clientWidth - 32);
}

/** What all of our plots have in common: a picture with a name, in the page's colours. */
function plot(label, options) {
  const chart = Plot.plot({
    ariaLabel: label,
    style: {
      background: "transparent",
      fontFamily: "inherit",
      fontSize: "12px",
      overflow: "visible",
    },
    ...options,
  });
  chart.setAttribute("role", "img");
  for (const group of chart.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label");
  return chart;
}
