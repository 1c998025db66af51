"use strict";
// The review page: one item at a time, every action a key, and no decision that is not on the disk.
// A decision leaves the page when the server has acknowledged it; until then the page keeps it,
// says "unsaved", and sends it again. Texts of the data are text nodes, never markup.

Object.assign(WORDS, {
  skip: ["Skip to the item", "跳到条目"],
  review: ["Review", "审核"],
  list: ["Items", "条目"],
  progress: ["Progress", "进度"],
  toLanguage: ["中文", "English"],
  toDark: ["Dark", "深色"],
  toLight: ["Light", "浅色"],
  help: ["Keys", "快捷键"],

  idle: ["Nothing to save", "无待保存内容"],
  saving: ["Saving…", "保存中…"],
  saved: ["Saved", "已保存"],
  unsaved: ["Unsaved — trying again", "未保存，正在重试"],
  draft: ["Draft, not decided", "草稿，尚未决定"],
  loading: ["Loading…", "加载中…"],

  qa: ["Question", "问答"],
  report: ["Report", "报告"],
  qaAndReport: ["Question or report", "问答或报告"],
  relevance: ["Relevance", "相关性"],
  near_duplicate: ["Near-duplicate", "近似重复"],
  test: ["test", "测试集"],
  dev: ["dev", "开发集"],
  label: ["label", "标注"],
  train: ["train", "训练集"],
  question: ["Question", "问题"],
  instruction: ["Task", "任务"],
  answer: ["Answer", "回答"],
  writtenBy: ["written by", "撰写："],
  left: ["left", "待办"],
  hoursShort: ["h", "小时"],
  minutesShort: ["min", "分钟"],
  isRelevant: ["Does the marked text belong to the domain?", "标记的文本是否属于本领域？"],
  isDuplicate: ["Are these the same document?", "这两篇是同一文档吗？"],
  passage: ["Passage", "段落"],
  showDocument: ["Show its document", "显示所在文档"],
  document: ["Document", "文档"],
  noTitle: ["Untitled", "无标题"],
  fromCharacter: ["from character", "起于第"],
  characterEnd: ["", "字"],
  toSpan: ["To the marked passage", "回到标记处"],
  notInPassage: ["not in the marked passage", "标记段落中没有"],
  rubric: ["Rubric", "判断标准"],

  accept: ["Accept", "接受"],
  edit: ["Edit", "修改"],
  reject: ["Reject", "拒绝"],
  skipItem: ["Skip", "跳过"],
  yes: ["Yes", "是"],
  no: ["No", "否"],
  back: ["Previous", "上一条"],
  forward: ["Back to the queue", "回到队列"],
  save: ["Save the edit", "保存修改"],
  cancel: ["Cancel", "取消"],
  why: ["Why is it rejected?", "为何拒绝？"],
  remark: ["another reason, then Enter", "其他原因，按回车提交"],
  unsupported: ["Not supported by the document", "文档不支持"],
  incomplete: ["Incomplete", "不完整"],
  unclear: ["Question unclear without the document", "离开文档问题不明"],
  useless: ["Of no use to anyone", "没有价值"],
  duplicate: ["Asked before", "重复提问"],
  wording: ["Badly written", "表达不佳"],
  unchanged: ["Nothing is changed yet.", "尚无修改。"],
  emptyQuestion: ["The question is empty; reject the item instead.", "问题为空；请改为拒绝。"],
  emptyAnswer: ["The answer is empty; reject the item instead.", "回答为空；请改为拒绝。"],

  decidedBefore: [
    "You decided on this item; a new decision replaces it.",
    "您已对此条目作出决定；新的决定将替换它。",
  ],
  yourDecision: ["Your decision", "您的决定"],
  conflict: [
    "This item was decided in another tab; nothing was overwritten.",
    "此条目已在另一标签页中决定；没有覆盖任何内容。",
  ],
  yours: ["Your text here", "您在此处的文本"],
  takeTheirs: ["Keep the decision of the other tab", "保留另一标签页的决定"],
  overwrite: ["Decide anew", "重新决定"],
  draftRestored: [
    "Your draft from before the page was loaded again.",
    "页面重新加载之前的草稿已恢复。",
  ],
  refused: ["The server refused the decision", "服务器拒绝了该决定"],
  signIn: [
    "This browser is not known any more. Open the address that the terminal printed last.",
    "此浏览器已失效。请打开终端最后打印的地址。",
  ],
  otherPerson: [
    "Another person's address was opened in this browser. Load the page again to go on as they.",
    "此浏览器已打开另一位审核人的地址。重新加载页面即以其身份继续。",
  ],
  notReached: [
    "The server does not answer. Start it again; the page goes on by itself.",
    "服务器没有响应。请重新启动，页面会自动继续。",
  ],
  notWritten: [
    "The server cannot write, such as to a full disk. Make room; the page goes on by itself.",
    "服务器无法写入，例如磁盘已满。请腾出空间，页面会自动继续。",
  ],

  done: ["Nothing is left for you", "您已全部完成"],
  doneText: [
    "Thank you. Others may still have items on their screens; what they leave comes here.",
    "谢谢。其他人可能仍有未完成的条目；若他们放下，会出现在这里。",
  ],
  lookAgain: ["Look again", "再看一次"],

  search: ["Search questions and answers", "搜索问题与回答"],
  show: ["Show", "显示"],
  all: ["all", "全部"],
  mine: ["mine", "我的"],
  openItems: ["open", "未完成"],
  decidedItems: ["decided", "已完成"],
  number: ["No.", "序号"],
  item: ["Item", "条目"],
  kind: ["Kind", "类型"],
  colon: [": ", "："],
  part: ["Part", "部分"],
  mineVerdict: ["My decision", "我的决定"],
  state: ["State", "状态"],
  isOpen: ["open", "未完成"],
  isDecided: ["decided", "已完成"],
  previousPage: ["Previous", "上一页"],
  nextPage: ["Next", "下一页"],
  listText: [
    "Items in the order of review. Your own decisions can be changed here; all other items come " +
      "in their order, and what others decided stays hidden.",
    "按审核顺序列出。您可以在此修改自己的决定；其余条目按顺序给出，他人的决定不可见。",
  ],
  none: ["none", "无"],

  decidedOf: ["decided", "已决定"],
  hoursLeft: ["time left", "剩余时间"],
  decisionsLeft: ["decisions left", "剩余决定"],
  today: ["yours today", "您今日"],
  pace: ["seconds each", "每条秒数"],
  partsTitle: ["Parts", "各部分"],
  due: ["to decide", "需决定"],
  items: ["items", "条目"],
  mean: ["s each", "秒/条"],
  samplingTitle: ["What nobody reads", "未审核部分的误差界"],
  readText: [
    "{reviewed} of {items} are read; {wrong} of them were rejected, edited or skipped.",
    "{items} 条中已读 {reviewed} 条，其中 {wrong} 条被拒绝、修改或跳过。",
  ],
  boundText: [
    "At most {bound} of the {unread} unread are wrong, with 95 % confidence; the limit is {limit}.",
    "以 95% 的置信度，未读的 {unread} 条中至多 {bound} 有误；上限为 {limit}。",
  ],
  allRead: ["All are read.", "已全部审核。"],
  accepted: ["The rest is accepted.", "其余予以接受。"],
  notAccepted: ["Reading goes on.", "审核继续。"],
  agreementTitle: ["Agreement", "一致性"],
  agreementText: [
    "Of items that were decided on twice, blindly. Kappa is Cohen's: agreement beyond chance.",
    "依据盲审两次的条目。Kappa 为 Cohen's kappa，即超出偶然的一致程度。",
  ],
  who: ["Who", "审核人"],
  between: ["all pairs", "所有两人组"],
  oneself: ["with oneself", "与自己"],
  twice: ["twice", "两次审核"],
  raw: ["equal", "相同比例"],
  interval: ["95 % interval", "95% 区间"],
  undefinedKappa: ["undefined: one verdict only", "未定义：仅一种结果"],
  verdictsTitle: ["Decisions", "各类决定"],
  verdict: ["Verdict", "结果"],
  reason: ["Reason", "原因"],
  count: ["Number", "数量"],
  peopleTitle: ["People", "审核人"],
  name: ["Name", "姓名"],
  decisions: ["decisions", "决定"],
  hours: ["hours", "小时"],

  keyAccept: ["accept a question with its answer", "接受问答"],
  keyLabel: ["yes, no: labels and pairs", "是、否（标注与成对文档）"],
  keyEdit: ["edit question and answer", "修改问题与回答"],
  keySave: ["save the edit", "保存修改"],
  keyReject: ["reject, then the number of a reason", "拒绝，再按原因的数字"],
  keySkip: ["skip: somebody else decides", "跳过，由他人决定"],
  keyBack: ["previous item, to change the decision; forward again", "上一条，可修改决定；返回队列"],
  keyScroll: ["scroll the document", "滚动文档"],
  keySpan: ["to the marked passage; to the document of a passage", "回到标记处；显示段落所在文档"],
  keyRubric: ["open or fold the rubric", "展开或收起判断标准"],
  keyViews: ["review, items, progress", "审核、条目、进度"],
  keyLook: ["language, theme", "语言、主题"],
  keyNote: [
    "Letters do nothing while you write in a field or while an input method composes.",
    "在输入框中书写或输入法组字时，字母键不起作用。",
  ],
  close: ["Close", "关闭"],
});

const REASONS = ["unsupported", "incomplete", "unclear", "useless", "duplicate", "wording"];
const VERDICTS = { qa: ["accept", "edit", "reject", "skip"], label: ["yes", "no", "skip"] };
const TONES = { accept: "good", edit: "change", reject: "bad", yes: "good", no: "bad", skip: "" };
const KEYS = { accept: "A", edit: "E", reject: "R", skip: "S", yes: "Y", no: "N" };
const IDLE = 60; // seconds without a sign of life that count as work at most
const RENEW = 60; // seconds between two signs that the item is still wanted
const RETRIES = [0.5, 1, 2, 4]; // seconds before a decision is sent again; the last one repeats

const REVIEWER = document.body.dataset.reviewer;
const RUBRIC = document.body.dataset.rubric; // of questions or of passages; "" where there is none
const main = document.getElementById("main");
const help = document.getElementById("help");

/** All that the page knows. `pending` is a decision that is not acknowledged. */
const state = {
  view: "review",
  mode: "decide", // or "edit", "reject"
  isWhole: false, // the document of a passage is shown, too
  work: undefined, // what the server gave; null where nothing is left
  progress: null,
  pending: null,
  notice: null, // {kind, ...}
  draft: null, // {question, answer} as they stand in the fields
  history: [], // of own decisions, oldest first: {item, again}
  saved: "", // the last verdict that was acknowledged
  failure: "",
  isRubricOpen: false,
  query: { show: "all", words: "", start: 0 },
};

// ---------------------------------------------------------------- the server

/** Ask the server; the answer is {status, body}, status 0 where there is none. */
async function ask(address, body) {
  const options = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ reviewer: REVIEWER, ...body }),
  };
  try {
    const response = await fetch(address, options || {});
    const isJson = (response.headers.get("Content-Type") || "").startsWith("application/json");
    return { status: response.status, body: isJson ? await response.json() : {} };
  } catch {
    return { status: 0, body: {} };
  }
}

/** Take a new item from an answer. */
function take(answer) {
  state.work = answer.work;
  state.progress = answer.progress;
  state.mode = "decide";
  state.isWhole = false;
  state.notice = null;
  state.draft = null;
  clock.start();
  restoreDraft();
}

/** The word for what is wrong: JSON comes with a 403 where the browser is another person's now. */
function failureOf(status, body) {
  if (status === 503) return "notWritten";
  if (status !== 403) return "notReached";
  return body.error ? "otherPerson" : "signIn";
}

async function loadNext() {
  const { status, body } = await ask("/api/next", {});
  state.failure = status === 200 ? "" : failureOf(status, body);
  if (status === 200) take(body);
  draw();
  if (status !== 200 && status !== 403) setTimeout(loadNext, 1000);
}

/** Show an item that was decided before. */
async function openItem({ item, again }) {
  if (state.pending) return;
  const { status, body } = await ask("/api/open", { item, again });
  if (status !== 200) return;
  take(body);
  state.view = "review";
  state.notice = { kind: "decidedBefore" };
  draw();
}

/** Decide; the item stays on the screen until the server has acknowledged it. */
async function decide(verdict, more = {}) {
  const work = state.work;
  if (!work || state.pending) return;
  state.pending = {
    item: work.item.id,
    again: work.again,
    version: work.version,
    key: newKey(),
    verdict,
    reason: "",
    question: work.item.question,
    answer: work.item.answer,
    seconds: clock.seconds(),
    ...more,
  };
  drawPending();
  await send();
}

/** A name for a decision, so that it is made once however often it is sent. */
function newKey() {
  const numbers = crypto.getRandomValues(new Uint32Array(4));
  return Array.from(numbers, (number) => number.toString(16).padStart(8, "0")).join("");
}

/** Send the pending decision until the server has answered. */
async function send() {
  for (let attempt = 0; ; attempt++) {
    const { status, body } = await ask("/api/decide", state.pending);
    if (status === 200) return acknowledged(body);
    if (status === 409) return conflicting(body);
    if (status === 422 || status === 413) return refused(body);
    state.failure = failureOf(status, body);
    drawPending();
    const seconds = RETRIES[Math.min(attempt, RETRIES.length - 1)];
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  }
}

function acknowledged(body) {
  const { item, again, verdict } = state.pending;
  state.history = state.history.filter((each) => each.item !== item || each.again !== again);
  state.history.push({ item, again });
  state.saved = verdict;
  state.pending = null;
  state.failure = "";
  forgetDraft();
  take(body);
  draw();
}

function conflicting(body) {
  const mine = state.pending;
  state.pending = null;
  state.failure = "";
  state.work = body.work;
  state.mode = "decide";
  state.notice = { kind: "conflict", mine };
  draw();
}

function refused(body) {
  state.pending = null;
  state.failure = "";
  state.notice = { kind: "refused", text: body.error };
  draw();
}

// ---------------------------------------------------------------- drafts, time

/** Keep what is written in the fields, also for a page that is loaded again. */
function keepDraft(fields) {
  const { item, again } = state.work;
  const draft = { item: item.id, again, ...fields };
  state.draft = fields;
  try {
    sessionStorage.setItem("soaes.draft", JSON.stringify(draft));
  } catch {
    // the draft lives as long as the page
  }
}

function forgetDraft() {
  state.draft = null;
  try {
    sessionStorage.removeItem("soaes.draft");
  } catch {
    // there is none
  }
}

/** Show a draft of the item again. */
function restoreDraft() {
  let draft = null;
  try {
    draft = JSON.parse(sessionStorage.getItem("soaes.draft"));
  } catch {
    return;
  }
  const work = state.work;
  if (!draft || !work || draft.item !== work.item.id || draft.again !== work.again) return;
  state.mode = "edit";
  state.draft = { question: draft.question, answer: draft.answer };
  state.notice = { kind: "draftRestored" };
}

/** Seconds at work on an item: a pause counts as IDLE at most, and a hidden page not at all. */
const clock = {
  total: 0,
  last: 0,
  start() {
    this.total = 0;
    this.last = performance.now();
  },
  sign() {
    const now = performance.now();
    if (!document.hidden) this.total += Math.min((now - this.last) / 1000, IDLE);
    this.last = now;
  },
  seconds() {
    this.sign();
    return this.total;
  },
};

for (const kind of ["keydown", "pointerdown", "pointermove", "wheel", "scroll"]) {
  addEventListener(kind, () => clock.sign(), { capture: true, passive: true });
}
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) clock.last = performance.now();
});
setInterval(() => {
  const isAtWork = !document.hidden && performance.now() - clock.last < 2 * RENEW * 1000;
  if (state.work && isAtWork && !state.pending) ask("/api/renew", { item: state.work.item.id });
}, 1000 * RENEW);

addEventListener("beforeunload", (event) => {
  if (state.pending) event.preventDefault();
});

// ---------------------------------------------------------------- texts

const CONTROLS = new RegExp(
  [
    "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad]",
    "[\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f]", // zero width, direction
    "[\\ufeff\\ufff9-\\ufffb]",
    "[\\u{e0000}-\\u{e007f}]", // tags
  ].join("|"),
  "gu",
);

/** A text for the screen: characters that nobody sees are shown by their numbers. */
function plain(text) {
  const parts = [];
  let start = 0;
  for (const found of text.matchAll(CONTROLS)) {
    const code = `U+${found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    if (found.index > start) parts.push(text.slice(start, found.index));
    parts.push(el("span", { class: "control" }, code));
    start = found.index + found[0].length;
  }
  parts.push(text.slice(start));
  return parts;
}

// what can be looked up in a document
const TITLE = "《[^》\\n]{1,60}》";
const ARTICLE = "第[〇零一二三四五六七八九十百千两\\d]+[章节条款项]";
const UNIT = "[万亿千百]*(?:元|年|月|日|倍|个|家|户|人|次|天)?";
const NUMBER = `\\d+(?:[,.]\\d+)*(?:\\s?[%％‰])?(?:${UNIT})`;
const FACTS = new RegExp(`${TITLE}|${ARTICLE}|${NUMBER}`, "gu");

/** The text in pieces: [piece, whether it is a fact]. */
function pieces(text) {
  const found = [];
  let start = 0;
  for (const match of text.matchAll(FACTS)) {
    if (match.index > start) found.push([text.slice(start, match.index), false]);
    found.push([match[0], true]);
    start = match.index + match[0].length;
  }
  found.push([text.slice(start), false]);
  return found;
}

/** Whether a document has a fact: 12 is not in 2012. */
function holds(text, fact) {
  for (let at = text.indexOf(fact); at >= 0; at = text.indexOf(fact, at + 1)) {
    const [before, after] = [text[at - 1] || "", text[at + fact.length] || ""];
    const isInside =
      (/^\d/.test(fact) && /[\d.]/.test(before)) || (/\d$/.test(fact) && /\d/.test(after));
    if (!isInside) return true;
  }
  return false;
}

/** An answer with its facts underlined: those that the passage has, and those that it lacks. */
function withFacts(text, passage) {
  return pieces(text).map(([piece, isFact]) => {
    if (!isFact) return plain(piece);
    if (holds(passage, piece)) return el("span", { class: "fact" }, plain(piece));
    return el("span", { class: "fact missing", title: say("notInPassage") }, plain(piece));
  });
}

/** The passage before, in and after the span; Python counts characters, not UTF-16 units. */
function cut(document, span) {
  if (!span.length) return ["", document.text, ""];
  const characters = Array.from(document.text);
  const [start, end] = span;
  return [
    characters.slice(0, start).join(""),
    characters.slice(start, end).join(""),
    characters.slice(end).join(""),
  ];
}

// ---------------------------------------------------------------- an item

function partOf(item) {
  return item.kind === "qa" ? item.split_hint || "train" : "label";
}

function documentPane(document, content, label) {
  const place = document.offset
    ? ` · ${say("fromCharacter")} ${document.offset.toLocaleString("en")} ${say("characterEnd")}`
    : "";
  return el(
    "section",
    { class: "pane document", tabindex: 0, "aria-label": label },
    el(
      "header",
      {},
      el("h2", {}, plain(document.title || say("noTitle"))),
      el("p", { class: "muted" }, plain(document.source), place),
    ),
    el("div", { class: "text" }, content),
  );
}

function markedDocument(item) {
  let [before, passage, after] = cut(item.document, item.span);
  if (!item.span.length) return documentPane(item.document, plain(passage), say("document"));
  const facts = new Set(
    pieces(item.answer)
      .filter(([piece, isFact]) => isFact && holds(passage, piece))
      .map(([piece]) => piece),
  );
  const [, indent, end] = passage.match(/^(\s*).*?(\s*)$/s);
  passage = passage.trim();
  before += indent;
  after = end + after;
  const inside = pieces(passage).map(([piece, isFact]) =>
    isFact && facts.has(piece) ? el("span", { class: "fact" }, plain(piece)) : plain(piece),
  );
  const content = [
    el("span", { class: "aside" }, plain(before)),
    el("mark", { class: "span" }, inside),
    el("span", { class: "aside" }, plain(after)),
  ];
  return documentPane(item.document, content, say("document"));
}

/** Whether a passage is shown alone: its relevance is judged without its title and context. */
function isAlone(item) {
  return item.kind === "relevance" && item.span.length > 0 && !state.isWhole;
}

function passagePane(item) {
  const passage = cut(item.document, item.span)[1];
  return el(
    "section",
    { class: "pane document", tabindex: 0, "aria-label": say("passage") },
    el("header", {}, el("h2", {}, say("passage"))),
    el("div", { class: "text" }, el("mark", { class: "span" }, plain(passage.trim()))),
  );
}

function panesOf(item) {
  if (item.kind === "near_duplicate") return pairPanes(item);
  return [isAlone(item) ? passagePane(item) : markedDocument(item)];
}

/** Paragraphs of one document, with what the other lacks marked. */
function comparedText(text, other) {
  const [own, others] = [text.split("\n"), other.split("\n")];
  const common = commonWords(own, others);
  const counterpart = commonWords(others, own);
  const changed = others.filter((_, place) => !counterpart[place]);
  let next = 0;
  return own.map((line, place) => {
    const end = place < own.length - 1 ? "\n" : "";
    if (common[place]) return [plain(line), end];
    const against = changed[next++] || "";
    if (line.length * against.length > 4e6) return [el("mark", { class: "only" }, plain(line)), end];
    return [marked(line, against), end];
  });
}

function pairPanes(item) {
  const [first, second] = [item.document, item.other];
  const panes = [
    documentPane(first, comparedText(first.text, second.text), say("document")),
    documentPane(second, comparedText(second.text, first.text), say("document")),
  ];
  let isFollowing = false;
  for (const [pane, other] of [panes, panes.toReversed()]) {
    pane.addEventListener("scroll", () => {
      if (isFollowing) return;
      isFollowing = true;
      const share = pane.scrollTop / Math.max(1, pane.scrollHeight - pane.clientHeight);
      other.scrollTop = share * (other.scrollHeight - other.clientHeight);
      requestAnimationFrame(() => (isFollowing = false));
    });
  }
  return panes;
}

function factsOfItem(item) {
  const progress = state.progress;
  const part = partOf(item);
  const left = progress
    ? `${progress.remaining.toLocaleString("en")} ${say("left")}${hoursText(progress.hours)}`
    : "";
  return el(
    "p",
    { class: "facts-of-item" },
    el("span", { class: part === "test" || part === "dev" ? "tag first" : "tag" }, say(part)),
    el("span", { class: "tag" }, say(item.kind === "qa" ? item.task || "qa" : item.kind)),
    item.model ? el("span", {}, `${say("writtenBy")} ${item.model}`) : null,
    el("span", { class: "place" }, left),
  );
}

function hoursText(hours) {
  return hours == null ? "" : ` · ${duration(hours)}`;
}

/** Hours, or minutes where it is less than one. */
function duration(hours) {
  if (hours < 1) return `${Math.ceil(60 * hours)} ${say("minutesShort")}`;
  const shown = hours < 9.95 ? hours.toFixed(1) : Math.round(hours).toLocaleString("en");
  return `${shown} ${say("hoursShort")}`;
}

function questionOf(item) {
  if (item.question) return item.question;
  return say(item.kind === "near_duplicate" ? "isDuplicate" : "isRelevant");
}

function subject(item) {
  const parts = [noticeBox(), factsOfItem(item), rubricBox(item)];
  if (item.kind !== "qa") {
    parts.push(
      el("p", { class: "question-text", id: "question", tabindex: -1 }, plain(questionOf(item))),
    );
    return el("div", { class: "subject" }, parts);
  }
  const questionLabel = say(item.task === "report" ? "instruction" : "question");
  if (state.mode === "edit") {
    const fields = state.draft || shownTexts(item);
    const asks = textField("asks", fields.question, questionLabel);
    const answers = textField("answers", fields.answer, say("answer"));
    const keep = () => {
      keepDraft({ question: asks.value, answer: answers.value });
      drawState();
    };
    for (const field of [asks, answers]) field.addEventListener("input", keep);
    parts.push(el("p", { class: "label" }, questionLabel), asks);
    parts.push(el("p", { class: "label" }, say("answer")), answers);
    return el("div", { class: "subject" }, parts);
  }
  const passage = cut(item.document, item.span)[1];
  const { question, answer } = shownTexts(item);
  parts.push(
    el("p", { class: "label" }, questionLabel),
    el("p", { class: "question-text", id: "question", tabindex: -1 }, plain(question)),
    el("p", { class: "label" }, say("answer")),
    el("div", { class: "answer-text", "data-task": item.task }, withFacts(answer, passage)),
  );
  return el("div", { class: "subject" }, parts);
}

/** By what to decide, folded until it is wanted; it says nothing of pairs of documents. */
function rubricBox(item) {
  if (!RUBRIC || item.kind === "near_duplicate") return null;
  const box = el(
    "details",
    { class: "rubric", id: "rubric" },
    el("summary", { "aria-keyshortcuts": "G" }, say("rubric"), " ", el("kbd", {}, "G")),
    el("div", { class: "text" }, plain(RUBRIC)),
  );
  box.open = state.isRubricOpen;
  box.addEventListener("toggle", () => (state.isRubricOpen = box.open));
  return box;
}

function foldRubric() {
  const box = document.getElementById("rubric");
  if (box) state.isRubricOpen = box.open = !box.open;
}

/** The texts of an item, as this person edited them before. */
function shownTexts(item) {
  const decision = state.work.decision;
  return decision && decision.verdict === "edit" ? decision : item;
}

function textField(name, value, label) {
  const field = el("textarea", {
    class: name,
    id: name,
    rows: 3,
    "aria-label": label,
    spellcheck: "false",
  });
  field.value = value;
  return field;
}

function noticeBox() {
  const notice = state.notice;
  if (!notice) return null;
  if (notice.kind === "conflict") {
    const isEdit = notice.mine.verdict === "edit";
    return el(
      "div",
      { class: "notice bad", role: "alert" },
      say("conflict"),
      ` ${say("yourDecision")}: ${verdictText(state.work.decision)}.`,
      isEdit ? el("p", {}, `${say("yours")}: `, plain(notice.mine.answer)) : null,
      el(
        "div",
        {},
        button(say("takeTheirs"), loadNext),
        button(say("overwrite"), () => dismiss()),
      ),
    );
  }
  if (notice.kind === "refused") {
    const text = `${say("refused")}: ${notice.text}`;
    return el("div", { class: "notice bad", role: "alert" }, text);
  }
  if (notice.kind === "warning")
    return el("div", { class: "notice bad", role: "alert" }, say(notice.text));
  if (notice.kind === "draftRestored") return el("div", { class: "notice" }, say("draftRestored"));
  const decision = state.work.decision;
  const previous = decision ? ` ${say("yourDecision")}: ${verdictText(decision)}.` : "";
  return el("div", { class: "notice" }, say("decidedBefore"), previous);
}

function dismiss() {
  state.notice = null;
  draw();
}

function verdictText(decision) {
  const verdict = say(decision.verdict === "skip" ? "skipItem" : decision.verdict);
  return decision.reason ? `${verdict} (${say(decision.reason)})` : verdict;
}

function button(text, onclick, attributes = {}) {
  return el("button", { type: "button", onclick, ...attributes }, text);
}

function choice(verdict, text, onclick, keys) {
  const decision = state.work.decision;
  const isMine = decision && decision.verdict === verdict;
  return el(
    "button",
    {
      type: "button",
      class: `choice ${TONES[verdict] || ""}`,
      "data-verdict": verdict,
      "aria-keyshortcuts": keys,
      "aria-pressed": isMine ? "true" : null,
      onclick,
    },
    text,
    el("kbd", {}, keys),
  );
}

function actions(item) {
  if (state.mode === "edit") return editActions();
  if (state.mode === "reject") return rejectActions();
  const verdicts = item.kind === "qa" ? VERDICTS.qa : VERDICTS.label;
  const buttons = verdicts.map((verdict) => {
    const word = verdict === "skip" ? "skipItem" : verdict;
    return choice(verdict, say(word), () => act(verdict), KEYS[verdict]);
  });
  return el(
    "div",
    { class: "actions" },
    el("div", { class: `choices ${buttons.length === 3 ? "three" : ""}` }, buttons),
    below(),
  );
}

function below() {
  const keyed = (keys, word, onclick) => button([el("kbd", {}, keys), say(word)], onclick);
  const { item } = state.work;
  return el(
    "div",
    { class: "below" },
    keyed("B", "back", goBack),
    state.work.version ? keyed("F", "forward", goForward) : null,
    item.span.length ? keyed("D", isAlone(item) ? "showDocument" : "toSpan", showSpan) : null,
    keyed("?", "help", showHelp),
  );
}

function editActions() {
  return el(
    "div",
    { class: "actions" },
    el(
      "div",
      { class: "choices two" },
      choice("edit", say("save"), saveEdit, "Ctrl+Enter"),
      choice("", say("cancel"), cancel, "Esc"),
    ),
  );
}

function rejectActions() {
  const remark = el("input", {
    class: "remark",
    id: "remark",
    type: "text",
    maxlength: 400,
    "aria-label": say("remark"),
    placeholder: say("remark"),
  });
  return el(
    "div",
    { class: "actions" },
    el("p", { class: "reasons-title" }, say("why")),
    el(
      "div",
      { class: "reasons" },
      REASONS.map((reason, place) =>
        el(
          "button",
          {
            type: "button",
            class: "choice bad",
            "data-reason": reason,
            onclick: () => decide("reject", { reason }),
          },
          el("kbd", {}, String(place + 1)),
          say(reason),
        ),
      ),
    ),
    el(
      "div",
      { class: "remark-line" },
      remark,
      button([say("cancel"), " ", el("kbd", {}, "Esc")], cancel, { class: "choice" }),
    ),
  );
}

// ---------------------------------------------------------------- actions

function act(verdict) {
  if (state.pending) return;
  if (verdict === "edit" || verdict === "reject") {
    state.mode = verdict;
    state.notice = null;
    drawWork();
    if (verdict === "edit") {
      const field = document.getElementById("answers");
      field.focus();
      field.setSelectionRange(field.value.length, field.value.length);
    }
    return;
  }
  decide(verdict);
}

function saveEdit() {
  const question = document.getElementById("asks").value.trim();
  const answer = document.getElementById("answers").value.trim();
  const item = state.work.item;
  const isUnchanged = question === item.question.trim() && answer === item.answer.trim();
  if (isUnchanged || !answer || !question) {
    warn(isUnchanged ? "unchanged" : answer ? "emptyQuestion" : "emptyAnswer");
    return;
  }
  decide("edit", { question, answer });
}

/** Say why nothing is done, without losing what is written. */
function warn(word) {
  const box = el("div", { class: "notice bad", role: "alert", id: "warning" }, say(word));
  const old = document.getElementById("warning");
  if (old) old.replaceWith(box);
  else document.querySelector(".subject").prepend(box);
}

function cancel() {
  if (state.pending) return;
  forgetDraft();
  state.mode = "decide";
  state.notice = state.work.version ? { kind: "decidedBefore" } : null;
  drawWork();
}

function goBack() {
  if (!state.history.length) return;
  const current = state.work;
  const isCurrent = (each) =>
    current && current.version && each.item === current.item.id && each.again === current.again;
  const place = state.history.findIndex(isCurrent);
  const previous = place < 0 ? state.history.at(-1) : state.history[place - 1];
  if (previous) openItem(previous);
}

/** From an item that was decided before back to the queue. */
function goForward() {
  if (state.work.version) loadNext();
}

/** Scroll to the span of a new item where it is not on the screen whole. */
function arriveAtSpan(pane) {
  const mark = document.querySelector("mark.span");
  if (!mark || pane.scrollHeight <= pane.clientHeight + 1) return;
  const [inner, outer] = [mark.getBoundingClientRect(), pane.getBoundingClientRect()];
  if (inner.top < outer.top || inner.bottom > outer.bottom) scrollToSpan();
}

/** Go to the marked passage; of one that is shown alone, show the document, too. */
function showSpan() {
  if (isAlone(state.work.item)) {
    state.isWhole = true;
    drawWork();
  }
  scrollToSpan();
}

function scrollToSpan() {
  const mark = document.querySelector("mark.span");
  if (mark)
    mark.scrollIntoView({ block: mark.offsetHeight > innerHeight * 0.6 ? "start" : "center" });
}

/** Scroll the document, or the page where there is one column. */
function scrollDocument(direction) {
  const pane = document.querySelector(".document");
  if (!pane) return;
  const isPane = pane.scrollHeight > pane.clientHeight + 1;
  const box = isPane ? pane : document.scrollingElement;
  box.scrollBy({
    top: direction * 0.8 * Math.min(box.clientHeight, innerHeight),
    behavior: "smooth",
  });
}

function show(view) {
  if (state.pending) return;
  state.view = view;
  draw();
}

function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  prefer("language", language);
  draw();
}

// ---------------------------------------------------------------- keys

const ACTIONS = {
  b: goBack,
  arrowleft: goBack,
  f: goForward,
  arrowright: goForward,
  d: showSpan,
  g: foldRubric,
  j: () => scrollDocument(1),
  k: () => scrollDocument(-1),
  " ": (event) => scrollDocument(event.shiftKey ? -1 : 1),
};
const EVERYWHERE = {
  "?": () => showHelp(),
  1: () => show("review"),
  2: () => show("list"),
  3: () => show("progress"),
  l: switchLanguage,
  t: () => {
    switchTheme();
    drawFrame();
  },
};

/** The key that was meant: the letter, whatever alphabet the keyboard writes. */
function keyOf(event) {
  const key = event.key.toLowerCase();
  if (key.length === 1 && key > "\u007f" && event.code.startsWith("Key")) {
    return event.code.slice(3).toLowerCase();
  }
  return key;
}

function isField(element) {
  return element.matches("input, textarea, select, [contenteditable]");
}

/** One key, one action; none while an input method composes, or while a decision is not saved. */
function onKey(event) {
  if (event.isComposing || event.keyCode === 229) return;
  if (event.repeat && event.key !== " " && !isField(event.target)) return;
  const isCommand = event.ctrlKey || event.metaKey;
  if (state.view === "review" && state.work && !help.open) {
    if (state.mode === "edit" && isCommand && event.key === "Enter") return run(event, saveEdit);
    if (state.mode !== "decide" && event.key === "Escape") return run(event, cancel);
    if (event.target.id === "remark" && event.key === "Enter") return run(event, rejectByRemark);
  }
  if (isCommand || event.altKey || isField(event.target) || help.open) return;
  const key = keyOf(event);
  if (["BUTTON", "SUMMARY"].includes(event.target.tagName) && key === " ") return;
  if (state.view === "review" && !state.pending) {
    const action = state.work ? workAction(key) : key === "b" && goBack;
    if (action) return run(event, action);
  }
  if (EVERYWHERE[key] && !state.pending && state.mode === "decide") run(event, EVERYWHERE[key]);
}

function workAction(key) {
  if (state.mode === "reject") {
    const reason = REASONS[Number(key) - 1];
    return reason && (() => decide("reject", { reason }));
  }
  if (state.mode !== "decide") return null;
  const verdicts = state.work.item.kind === "qa" ? VERDICTS.qa : VERDICTS.label;
  const verdict = verdicts.find((each) => KEYS[each].toLowerCase() === key);
  if (verdict) return () => act(verdict);
  return ACTIONS[key];
}

function rejectByRemark() {
  const reason = document.getElementById("remark").value.trim();
  if (reason) decide("reject", { reason });
}

function run(event, action) {
  event.preventDefault();
  action(event);
}

addEventListener("keydown", onKey);

// ---------------------------------------------------------------- list

async function drawList() {
  const query = new URLSearchParams(state.query);
  const { status, body } = await ask(`/api/queue?${query}`);
  if (state.view !== "list" || status !== 200) return;
  const table = document.getElementById("list");
  const entries = body.items.map((entry) => [
    entry.place,
    el(
      "span",
      {},
      entry.verdict
        ? button(plain(entry.question), () => openItem({ item: entry.id, again: entry.again }), {
            class: "open-item",
          })
        : plain(entry.question),
      el("span", { class: "about" }, plain(entry.about)),
    ),
    `${say(entry.part)} · ${say(entry.kind === "qa" ? entry.task || "qa" : entry.kind)}`,
    entry.verdict ? say(entry.verdict === "skip" ? "skipItem" : entry.verdict) : "–",
    say(entry.open ? "isOpen" : "isDecided"),
  ]);
  const header = ["number", "item", "part", "mineVerdict", "state"].map(say);
  const last = Math.min(body.start + body.page, body.total);
  const [first, end, total] = [body.start + 1, last, body.total].map((number) =>
    number.toLocaleString("en"),
  );
  const range = body.total ? `${first}–${end} / ${total}` : say("none");
  const turn = (start) => () => {
    state.query.start = start;
    drawList();
  };
  table.replaceChildren(
    plainTable(header, entries, say("list")),
    el(
      "p",
      { class: "pager" },
      button(say("previousPage"), turn(Math.max(0, body.start - body.page)), {
        disabled: body.start === 0,
      }),
      el("span", {}, range),
      button(say("nextPage"), turn(body.start + body.page), { disabled: last >= body.total }),
    ),
  );
}

function listView() {
  const set = (key, value) => {
    state.query = { ...state.query, [key]: value, start: 0 };
    drawList();
  };
  const search = el("input", {
    type: "search",
    value: state.query.words,
    "aria-label": say("search"),
    placeholder: say("search"),
  });
  let timer = 0;
  search.addEventListener("input", (event) => {
    if (event.isComposing) return;
    clearTimeout(timer);
    timer = setTimeout(() => set("words", search.value), 200);
  });
  search.addEventListener("compositionend", () => set("words", search.value));
  const shows = [
    ["all", "all"],
    ["mine", "mine"],
    ["open", "openItems"],
    ["decided", "decidedItems"],
  ];
  const options = shows.map(([value, word]) => [value, say(word)]);
  return el(
    "div",
    { class: "sheet" },
    el("h1", {}, say("list")),
    el("p", { class: "lead" }, say("listText")),
    el(
      "div",
      { class: "fields" },
      search,
      dropDown(say("show"), options, state.query.show, (value) => set("show", value)),
    ),
    el("div", { id: "list", class: "list" }),
  );
}

// ---------------------------------------------------------------- progress

function percent(share) {
  return `${(100 * share).toFixed(1)}\u00a0%`;
}

async function drawProgress() {
  const { status, body } = await ask("/api/progress");
  if (state.view !== "progress" || status !== 200) return;
  state.progress = body.headline; // others decided since this page was last told
  document
    .getElementById("progress")
    .replaceChildren(
      ...[
        headNumbers(),
        groupTable(body),
        sampling(body),
        agreementTable(body),
        verdictTable(body),
        peopleTable(body),
      ]
        .flat(Infinity)
        .filter(Boolean),
    );
}

function progressView() {
  return el(
    "div",
    { class: "sheet" },
    el("h1", {}, say("progress")),
    el("div", { id: "progress" }),
  );
}

function headNumbers() {
  const { decided, due, remaining, hours, today, pace } = state.progress;
  const whole = (number) => number.toLocaleString("en");
  const entries = [
    ["decidedOf", [whole(decided), el("small", { class: "muted" }, ` / ${whole(due)}`)]],
    ["decisionsLeft", whole(remaining)],
    ["hoursLeft", hours == null ? "–" : duration(hours)],
    ["today", whole(today)],
    ["pace", pace == null ? "–" : Math.round(pace)],
  ];
  return el(
    "dl",
    { class: "numbers" },
    entries.map(([key, value]) => el("div", {}, el("dt", {}, say(key)), el("dd", {}, value))),
  );
}

function groupTable(body) {
  const seconds = (group) => {
    const found = body.seconds.find((each) => each.kind === group.kind && each.task === group.task);
    return found ? Math.round(found.seconds) : "–";
  };
  const rows = body.groups.map((group) => [
    say(group.part),
    say(group.kind === "qa" ? group.task || "qa" : group.kind),
    group.items,
    group.due,
    group.decided,
    el("progress", { max: Math.max(1, group.due), value: Math.min(group.decided, group.due) }),
    seconds(group),
  ]);
  const header = [
    say("part"),
    say("kind"),
    say("items"),
    say("due"),
    say("decidedOf"),
    "",
    say("mean"),
  ];
  return [el("h2", {}, say("partsTitle")), plainTable(header, rows, say("partsTitle"))];
}

function sampling(body) {
  if (!body.sampling.length) return null;
  const boxes = body.sampling.map((lot) => {
    const values = {
      reviewed: lot.reviewed.toLocaleString("en"),
      items: lot.items.toLocaleString("en"),
      wrong: lot.wrong.toLocaleString("en"),
      unread: lot.unread.toLocaleString("en"),
      bound: percent(lot.unread_wrong_at_most),
      limit: percent(lot.limit),
    };
    const rest = lot.accepted ? "accepted" : "notAccepted";
    const verdict = say(lot.unread ? rest : "allRead");
    return el(
      "div",
      { class: lot.accepted ? "bound accepted" : "bound" },
      el("b", {}, say(lot.task)),
      el("div", {}, fill("readText", values)),
      el(
        "div",
        {},
        lot.unread ? fill("boundText", values) + " " : "",
        el("b", { class: lot.accepted ? "good-text" : "" }, verdict),
      ),
    );
  });
  return [el("h2", {}, say("samplingTitle")), boxes];
}

/** The word for a kind whose tasks are counted together. */
function sayKind(kind) {
  return say(kind === "qa" ? "qaAndReport" : kind);
}

/** The text of a key with its {names} replaced. */
function fill(key, values) {
  return say(key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function agreementTable(body) {
  if (!body.agreement.length) return null;
  const rows = body.agreement.map((each) => {
    const isOneself = each.first && each.first === each.second;
    const who = !each.first
      ? say("between")
      : isOneself
        ? `${each.first}, ${say("oneself")}`
        : `${each.first}, ${each.second}`;
    const interval = each.kappa == null ? "–" : `${each.low.toFixed(2)} – ${each.high.toFixed(2)}`;
    const kappa = each.kappa == null ? say("undefinedKappa") : each.kappa.toFixed(2);
    return [sayKind(each.kind), who, each.items, percent(each.raw), kappa, interval];
  });
  const header = [say("kind"), say("who"), say("twice"), say("raw"), "kappa", say("interval")];
  return [
    el("h2", {}, say("agreementTitle")),
    el("p", { class: "muted" }, say("agreementText")),
    plainTable(header, rows, say("agreementTitle")),
  ];
}

function verdictTable(body) {
  if (!body.verdicts.length) return null;
  const rows = body.verdicts.map((each) => [
    sayKind(each.kind),
    say(each.verdict === "skip" ? "skipItem" : each.verdict),
    each.reason ? el("span", {}, plain(say(each.reason))) : "",
    each.n,
  ]);
  const header = ["kind", "verdict", "reason", "count"].map(say);
  return [el("h2", {}, say("verdictsTitle")), plainTable(header, rows, say("verdictsTitle"))];
}

function peopleTable(body) {
  const rows = body.people.map((person) => [
    person.reviewer,
    person.decisions,
    person.hours.toFixed(1),
  ]);
  const header = ["name", "decisions", "hours"].map(say);
  return [el("h2", {}, say("peopleTitle")), plainTable(header, rows, say("peopleTitle"))];
}

// ---------------------------------------------------------------- the page

function endView() {
  return el(
    "div",
    { class: "end" },
    el("div", { class: "tick", "aria-hidden": "true" }, "✓"),
    el("h1", {}, say("done")),
    el("p", { class: "muted" }, say("doneText")),
    el(
      "p",
      {},
      button(say("lookAgain"), loadNext),
      " ",
      state.history.length ? [button([say("back"), " ", el("kbd", {}, "B")], goBack), " "] : null,
      button(say("progress"), () => show("progress")),
    ),
  );
}

function drawWork() {
  const { work } = state;
  if (work === undefined) {
    main.replaceChildren(
      el("div", { class: "end" }, el("p", { class: "muted" }, say(state.failure || "loading"))),
    );
    return;
  }
  if (work === null) {
    main.replaceChildren(endView());
    return;
  }
  const item = work.item;
  const isPair = item.kind === "near_duplicate";
  const panes = panesOf(item);
  const judge = el(
    "section",
    { class: "pane judge", "aria-label": say("question") },
    subject(item),
    actions(item),
  );
  const isNew = main.dataset.item !== item.id;
  main.dataset.item = item.id;
  const scrolled = isNew ? 0 : (document.querySelector(".document") || {}).scrollTop || 0;
  const classes = `work${isPair ? " pair" : ""}${isNew ? " arriving" : ""}`;
  main.replaceChildren(el("div", { class: classes }, panes, judge));
  if (isNew) {
    scrollTo(0, 0);
    arriveAtSpan(panes[0]);
    const question = document.getElementById("question");
    if (question) question.focus({ preventScroll: true });
  } else {
    panes[0].scrollTop = scrolled;
  }
  if (state.pending) drawPending();
}

/** While a decision is not saved: the key is shown as pressed, and nothing else can be done. */
function drawPending() {
  for (const each of main.querySelectorAll(".actions button, .actions input, textarea")) {
    each.disabled = true;
    const { verdict, reason } = each.dataset;
    const { pending } = state;
    if (verdict === pending.verdict || (reason && reason === pending.reason))
      each.classList.add("pressed");
  }
  drawState();
}

/** What the page says of saving; a failure stays until it is over. */
function drawState() {
  const box = document.getElementById("state");
  const kind = stateKind();
  box.dataset.state = kind;
  box.title = state.failure ? say(state.failure) : "";
  if (state.failure) {
    const isTryingAgain = ["notReached", "notWritten"].includes(state.failure);
    box.textContent = say(state.pending && isTryingAgain ? "unsaved" : state.failure);
  } else if (kind === "saved") {
    const word = state.saved === "skip" ? "skipItem" : state.saved;
    box.textContent = say("saved") + say("colon") + say(word);
  } else box.textContent = say(kind);
}

function stateKind() {
  if (state.failure) return "unsaved";
  if (state.pending) return "saving";
  if (state.draft && state.view === "review") return "draft";
  return state.saved ? "saved" : "idle";
}

function drawFrame() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-words]")) {
    element.textContent = say(element.dataset.words);
  }
  document.getElementById("views").replaceChildren(
    ...["review", "list", "progress"].map((view) =>
      button(say(view), () => show(view), {
        "aria-current": state.view === view ? "page" : null,
      }),
    ),
  );
  document.getElementById("language").textContent = say("toLanguage");
  document.getElementById("theme").textContent = say(isDark() ? "toLight" : "toDark");
  document.getElementById("help-button").setAttribute("aria-label", say("help"));
  const { decided, due } = state.progress || { decided: 0, due: 1 };
  const share = due ? (100 * decided) / due : 100;
  document.querySelector("#advance i").style.width = `${share}%`;
  drawState();
}

function draw() {
  drawFrame();
  if (state.view === "review") return drawWork();
  delete main.dataset.item;
  main.replaceChildren(state.view === "list" ? listView() : progressView());
  if (state.view === "list") drawList();
  else drawProgress();
}

function showHelp() {
  const keys = [
    ["A", "keyAccept"],
    ["E", "keyEdit"],
    ["Ctrl+Enter", "keySave"],
    ["R  1–6", "keyReject"],
    ["Y  N", "keyLabel"],
    ["S", "keySkip"],
    ["B  F", "keyBack"],
    ["J  K", "keyScroll"],
    ["D", "keySpan"],
    ["G", "keyRubric"],
    ["1  2  3", "keyViews"],
    ["L  T", "keyLook"],
  ];
  help.replaceChildren(
    el("h2", { id: "help-title" }, say("help")),
    el(
      "dl",
      {},
      keys.flatMap(([names, word]) => [
        el(
          "dt",
          {},
          names.split("  ").map((name) => el("kbd", {}, name)),
        ),
        el("dd", {}, say(word)),
      ]),
    ),
    el("p", { class: "muted" }, say("keyNote")),
    button([say("close"), " ", el("kbd", {}, "Esc")], () => help.close()),
  );
  help.showModal();
}

document.getElementById("language").addEventListener("click", switchLanguage);
document.getElementById("theme").addEventListener("click", EVERYWHERE.t);
document.getElementById("help-button").addEventListener("click", showHelp);
help.addEventListener("click", (event) => event.target === help && help.close());

async function begin() {
  drawFrame();
  const { status, body } = await ask("/api/mine");
  if (status === 200) state.history = body.decisions;
  await loadNext();
}
begin();
