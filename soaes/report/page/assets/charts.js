"use strict";
// Charts: the small interval of an effect, and the pictures of tables.

const COLOURS = [
  "#3b6ea8",
  "#c8642b",
  "#2f8f6b",
  "#8a5aa8",
  "#b8912f",
  "#4aa3b8",
  "#b84a6b",
  "#6b7280",
];

/**
 * Draw effects on one axis: a line for the interval, a dot for ours, a diamond for the paper's.
 * @param {object} pair value, low, high, paper; any may be null
 * @param {number} extent the axis runs from -extent to extent
 */
function intervalChart(pair, extent) {
  const width = 160;
  const middle = 10;
  const x = (value) => 80 + 72 * Math.max(-1, Math.min(1, value / extent));
  const chart = svg("svg", {
    viewBox: `0 0 ${width} 20`,
    class: "interval",
    "aria-hidden": "true",
  });
  chart.append(svg("line", { x1: 80, x2: 80, y1: 1, y2: 19, class: "zero" }));
  if (pair.low != null) {
    const ends = { x1: x(pair.low), x2: x(pair.high), y1: middle, y2: middle };
    chart.append(svg("line", { ...ends, class: "bar" }));
  }
  if (pair.paper != null) {
    const place = `translate(${x(pair.paper)} ${middle}) rotate(45)`;
    chart.append(
      svg("rect", { x: -3.5, y: -3.5, width: 7, height: 7, transform: place, class: "paper" }),
    );
  }
  if (pair.value != null)
    chart.append(svg("circle", { cx: x(pair.value), cy: middle, r: 3.6, class: "ours" }));
  return chart;
}

/** The axis that holds all effects of some pairs. */
function extentOf(pairs) {
  const values = pairs.flatMap((pair) => [pair.value, pair.low, pair.high, pair.paper]);
  return Math.max(1e-9, ...values.filter((value) => value != null).map(Math.abs));
}

// ---------------------------------------------------------------- pictures of tables

const SYMBOLS = {
  circle: "circle",
  square: "square",
  star: "star",
  plus: "cross",
  down: "triangle",
  up: "triangle",
  left: "diamond",
  right: "diamond2",
};
const LOOK_COLOURS = {
  blue: "var(--blue)",
  red: "var(--orange)",
  green: "var(--green)",
  grey: "var(--muted)",
  black: "var(--text)",
};

/** The picture of a table: its panels side by side, with a legend of their series. */
function pictureOf(table) {
  if (!table.picture.length) return null;
  const names = new Map();
  for (const panel of table.picture) {
    for (const series of panel.series) names.set(series.name, series.look);
  }
  const legend = [...names].map(([name, look]) => el("li", {}, legendMark(look), say(name)));
  return el(
    "div",
    { class: "picture" },
    el("ul", { class: "legend" }, legend),
    el(
      "div",
      { class: "panels" },
      table.picture.map((panel) => panelChart(table, panel)),
    ),
  );
}

function legendMark(look) {
  const points = [{}];
  const marks = look.marker
    ? [Plot.dot(points, { x: () => 0, y: () => 0, r: 4.5, ...pointStyle(look) })]
    : [Plot.lineX([-1, 1], { x: (d) => d, y: () => 0, stroke: LOOK_COLOURS[look.colour] })];
  const domain = [-1, 1];
  const frame = { width: 22, height: 16, margin: 2, axis: null, x: { domain }, y: { domain } };
  const chart = plot("", { ...frame, marks });
  chart.setAttribute("aria-hidden", "true");
  return chart;
}

function pointStyle(look) {
  const colour = LOOK_COLOURS[look.colour];
  return {
    symbol: SYMBOLS[look.marker],
    rotate: look.marker === "down" ? 180 : 0,
    stroke: colour,
    strokeWidth: 1.4,
    fill: look.hollow ? "var(--raised)" : colour,
  };
}

function panelChart(table, panel) {
  const isDotPlot = panel.categories.length > 0;
  const points = panel.series.flatMap((series, index) =>
    series.points.map((point) => ({
      series,
      x: point.x,
      y: point.y,
      place: isDotPlot ? point.y.value + (index ? 0.16 : -0.16) : point.y.value,
    })),
  );
  const title = panel.title || say(table.title);
  const [xLabel, note] = panel.x_label.split("\n").map(say);
  const width = chartWidth(table.picture.length > 1 ? 560 : 760);
  const chart = plot(title, {
    width,
    height: isDotPlot ? 56 + 44 * panel.categories.length : 320,
    marginLeft: isDotPlot ? Math.min(215, 0.4 * width) : 46,
    marginBottom: 44,
    x: xAxis(panel, xLabel),
    y: yAxis(panel),
    marks: [
      isDotPlot ? categoryAxis(panel, width) : null,
      panel.x_rule == null
        ? null
        : Plot.ruleX([panel.x_rule], { stroke: "var(--muted)", strokeDasharray: "3 3" }),
      panel.y_rule == null
        ? null
        : Plot.ruleY([panel.y_rule], { stroke: "var(--muted)", strokeDasharray: "3 3" }),
      ...panel.series.map((series) => lineMark(series)),
      intervalMark(
        points.filter((point) => point.x.low != null),
        true,
      ),
      intervalMark(
        points.filter((point) => point.y.low != null),
        false,
      ),
      ...points.filter((point) => point.series.look.marker).map(pointMark),
      Plot.tip(
        points,
        Plot.pointer({ x: (point) => point.x.value, y: "place", title: tipText, fontSize: 12 }),
      ),
    ],
  });
  return el(
    "figure",
    {},
    panel.title ? el("figcaption", {}, panel.title) : null,
    chart,
    note ? el("p", { class: "muted" }, note) : null,
  );
}

function xAxis(panel, label) {
  const axis = {
    label,
    labelAnchor: "center",
    labelArrow: "none",
    nice: true,
    grid: panel.categories.length > 0,
  };
  if (panel.x_ticks.length)
    return { ...axis, ticks: panel.x_ticks, inset: 12, tickFormat: (tick) => String(tick) };
  return { ...axis, ticks: 5, inset: 6 };
}

function yAxis(panel) {
  if (!panel.categories.length) {
    const label = say(panel.y_label.replaceAll("\n", " "));
    return {
      label,
      labelArrow: "none",
      labelAnchor: "top",
      grid: true,
      nice: true,
      ticks: 5,
      inset: 6,
    };
  }
  return { domain: [panel.categories.length - 0.5, -0.5], axis: null };
}

function categoryAxis(panel, width) {
  return Plot.axisY(
    panel.categories.map((_, place) => place),
    {
      tickFormat: (place) => shortened(panel.categories[place], width < 500 ? 20 : 30),
      tickSize: 0,
      label: null,
      lineHeight: 1.2,
    },
  );
}

/** A label over two or three lines. */
function shortened(text, most) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last && last.length + word.length > most) lines.push(word);
    else lines[lines.length - 1] = last ? `${last} ${word}` : word;
  }
  return lines.join("\n");
}

function lineMark(series) {
  if (!series.look.line) return null;
  return Plot.line(series.points, {
    x: (point) => point.x.value,
    y: (point) => point.y.value,
    stroke: LOOK_COLOURS[series.look.colour],
    strokeDasharray: series.look.line === "dotted" ? "2 4" : null,
  });
}

function intervalMark(points, isX) {
  const stroke = {
    stroke: (point) => LOOK_COLOURS[point.series.look.colour],
    strokeWidth: 2,
    strokeOpacity: 0.45,
  };
  if (isX)
    return Plot.ruleY(points, {
      y: "place",
      x1: (point) => point.x.low,
      x2: (point) => point.x.high,
      ...stroke,
    });
  return Plot.ruleX(points, {
    x: (point) => point.x.value,
    y1: (point) => point.y.low,
    y2: (point) => point.y.high,
    ...stroke,
  });
}

function pointMark(point) {
  const style = pointStyle(point.series.look);
  return Plot.dot([point], { x: () => point.x.value, y: () => point.place, r: 4.5, ...style });
}

function tipText(point) {
  const of = (value) =>
    value.low == null
      ? rounded(value.value)
      : `${rounded(value.value)} [${rounded(value.low)}, ${rounded(value.high)}]`;
  const y = point.place === point.y.value ? `, ${of(point.y)}` : "";
  return `${say(point.series.name)}: ${of(point.x)}${y}`;
}

function rounded(value) {
  return String(Number(value.toPrecision(4)));
}
