"use strict";
// Training curves, overlaid by chain and seed.

const CURVE_METRICS = [
  "train/loss",
  "val/perplexity",
  "train/lr",
  "train/grad_norm",
  "train/tokens_per_s",
  "val/rouge1",
];

/** The section: a stage, its chains as switches, a chart for each metric. */
function curvesSection() {
  const box = el("div", {}, say("loading"));
  block(RECORD.curves).then((curves) => {
    const all = Object.values(curves);
    if (!all.length) {
      box.replaceChildren(say("noCurves"));
      return;
    }
    const stages = [...new Set(all.map((curve) => curve.stage))];
    const state = { stage: stages.at(-1), hidden: new Set(), log: false };
    const draw = () => box.replaceChildren(...curvesView(all, stages, state, draw));
    draw();
  });
  return box;
}

function curvesView(all, stages, state, draw) {
  const curves = all.filter((curve) => curve.stage === state.stage);
  const chains = [...new Set(curves.map((curve) => curve.chain))];
  const colour = (chain) => COLOURS[chains.indexOf(chain) % COLOURS.length];
  const toggle = (chain) => {
    if (!state.hidden.delete(chain)) state.hidden.add(chain);
    draw();
  };
  const legend = chains.map((chain) =>
    el(
      "button",
      {
        type: "button",
        class: "chip",
        "aria-pressed": String(!state.hidden.has(chain)),
        onclick: () => toggle(chain),
      },
      el("span", { class: "swatch", style: `background: ${colour(chain)}` }),
      chain,
    ),
  );
  const shown = curves.filter((curve) => !state.hidden.has(curve.chain));
  return [
    el(
      "div",
      { class: "fields" },
      dropDown(
        say("stage"),
        stages.map((stage) => [stage, stage]),
        state.stage,
        (stage) => {
          state.stage = stage;
          draw();
        },
      ),
      el(
        "label",
        { class: "field check" },
        el("input", {
          type: "checkbox",
          checked: state.log,
          onchange: () => {
            state.log = !state.log;
            draw();
          },
        }),
        el("span", {}, say("logarithmic")),
      ),
    ),
    el("div", { class: "chips" }, legend),
    el(
      "div",
      { class: "charts" },
      CURVE_METRICS.map((metric) => curveChart(shown, metric, colour, state.log)),
    ),
  ];
}

function curveChart(curves, metric, colour, isLog) {
  const points = [];
  for (const curve of curves) {
    const [steps, values] = curve.metrics[metric] || [[], []];
    const seed = curve.seeds.join(", ");
    steps.forEach((step, index) =>
      points.push({ step, value: values[index], chain: curve.chain, seed }),
    );
  }
  if (!points.length) return null;
  const name = say(metric);
  const scale = isLog || metric === "val/perplexity" ? "log" : "linear"; // from 50 to below 2
  const channels = {
    chain: { value: "chain", label: say("model") },
    seed: { value: "seed", label: say("seed") },
  };
  const chart = plot(name, {
    height: 250,
    width: chartWidth(420),
    marginLeft: 48,
    marginBottom: 38,
    x: { label: say("step"), ticks: 5 },
    y: { label: null, type: scale, grid: true, ticks: 5, tickFormat: shortNumber },
    marks: [
      Plot.lineY(points, {
        x: "step",
        y: "value",
        z: (point) => `${point.chain} ${point.seed}`,
        stroke: (point) => colour(point.chain),
        strokeWidth: 1.25,
      }),
      Plot.tip(points, Plot.pointer({ x: "step", y: "value", channels })),
    ],
  });
  const isDistilled = metric === "train/loss" && curves.some((curve) => curve.stage === "distill");
  const remark = isDistilled ? el("small", {}, say("distillLoss")) : null;
  return el("figure", {}, el("figcaption", {}, name), chart, remark);
}

/** 12k, 0.006, 3e-4. */
function shortNumber(value) {
  if (Math.abs(value) >= 1000) return `${value / 1000}k`;
  return Math.abs(value) < 0.001 && value !== 0 ? value.toExponential() : String(value);
}
