"use strict";
// Where the time went, what failed, and what became of the data.

function timeSection() {
  const total = RECORD.times.reduce((sum, kind) => sum + kind.seconds, 0);
  const most = Math.max(1, ...RECORD.times.map((kind) => kind.seconds));
  const rows = RECORD.times.map((kind) => [
    el("code", {}, kind.kind),
    kind.number,
    Math.round(kind.seconds),
    `${((100 * kind.seconds) / total).toFixed(1)} %`,
    el("span", { class: "timebar", style: `width: ${(100 * kind.seconds) / most}%` }),
  ]);
  return plainTable(["stage", "number", "seconds", "ofAll", ""].map(say), rows, say("time"));
}

function failuresSection() {
  const stages = Object.entries(RECORD.stages);
  const failed = stages.filter(([, stage]) => stage.state === "failed");
  const unbuilt = stages.filter(([, stage]) => stage.state === "not built").length;
  const rows = failed.map(([name, stage]) => [
    el("code", {}, name),
    stage.label,
    stage.seeds.join(", "),
    stage.reason,
  ]);
  return [
    failed.length
      ? plainTable(["stage", "model", "seeds", "reason"].map(say), rows, say("failures"))
      : el("p", {}, say("noFailures")),
    unbuilt ? el("p", { class: "muted" }, `${unbuilt} ${say("unbuilt")}`) : null,
  ];
}

/** The data of one seed at a time: seeds have worlds of their own. */
function dataSection() {
  const seeds = [...new Set(RECORD.data.flatMap((account) => account.seeds))];
  const box = el("div");
  const draw = (seed) => {
    const accounts = RECORD.data.filter((account) => account.seeds.map(String).includes(seed));
    const choice = dropDown(
      say("seed"),
      seeds.map((each) => [each, each]),
      seed,
      draw,
    );
    box.replaceChildren(
      el("div", { class: "fields" }, seeds.length > 1 ? choice : null),
      packTable(accounts.filter((account) => account.stage === "pack")),
      ...accounts.filter((account) => account.stage === "files").map(curationTable),
    );
  };
  draw(String(seeds[0]));
  return box;
}

function packTable(accounts) {
  const header = ["source", "stage", "part", "documents", "tokens", "kept", "dropped"];
  header.push("cutOver", "rows", "fill", "lossTokens");
  const lines = accounts.flatMap((account) => [
    packLine(account, "train"),
    packLine(account, "dev"),
  ]);
  return lines.length ? plainTable(header.map(say), lines, say("data")) : "";
}

function packLine(account, part) {
  const split = account.report[part];
  return [
    account.report.sources.join(" + "),
    el("code", {}, account.name),
    part,
    split.documents,
    split.tokens,
    split.kept,
    split.dropped.documents,
    split.split.documents,
    split.rows,
    `${(100 * split.fill).toFixed(1)} %`,
    split.loss_tokens,
  ];
}

/** What was kept of a user's files, what was dropped and why. */
function curationTable(account) {
  const kinds = ["general", "corpus", "dialogue", "qa", "exam"].filter(
    (kind) => account.report[kind],
  );
  const rows = kinds.map((kind) => {
    const counts = account.report[kind];
    const dropped = Object.entries(counts.dropped || {}).map(
      ([reason, count]) => `${count} ${reason}`,
    );
    return [kind, counts.files ?? "", counts.kept ?? "", dropped.join("; ") || "0"];
  });
  const header = [say("source"), "files", say("kept"), say("dropped")];
  return el(
    "div",
    {},
    el("h3", {}, el("code", {}, account.name)),
    plainTable(header, rows, account.name),
    account.report.problems_total
      ? el(
          "details",
          { class: "remarks" },
          el("summary", {}, `${account.report.problems_total} ${say("problems")}`),
          account.report.problems.map((problem) => el("p", {}, problem)),
        )
      : null,
  );
}
