"use strict";
// Every string of the interface, in both languages. Titles and claims are translated by
// chinese.json; any other text of the data stays as it is.

const WORDS = {
  skip: ["Skip to content", "跳到正文"],
  sections: ["Sections", "目录"],
  verdicts: ["Verdicts", "结论"],
  tables: ["Tables", "表格"],
  answers: ["Answers", "回答"],
  curves: ["Curves", "训练曲线"],
  time: ["Time", "耗时"],
  failures: ["Failures", "失败"],
  data: ["Data", "数据"],

  title: ["What was measured", "实验结果"],
  seed: ["seed", "种子"],
  seeds: ["seeds", "种子"],
  scale: ["scale", "规模"],
  commit: ["commit", "提交"],
  machine: ["machine", "机器"],
  made: ["made", "生成于"],
  newest: ["newest result", "最新结果"],
  stages: ["stages", "阶段"],

  holds: ["holds", "成立"],
  fails: ["fails", "不成立"],
  undecided: ["undecided", "未定"],
  "not measured": ["not measured", "未测"],
  verdictsText: [
    "Each claim of the paper, by the 95 % interval of its effect. A dot is our effect with " +
      "its interval, a diamond the paper's; the line is zero, and each claim has a scale of " +
      "its own. Open a claim to see all its pairs.",
    "论文的每条论断，按效应的 95% 置信区间判定。圆点为我们的效应及区间，菱形为论文的效应，竖线为零，各论断的尺度不同。展开论断可查看每一对比较。",
  ],
  claim: ["Claim", "论断"],
  margin: ["margin", "容差"],
  within: ["within", "范围"],
  effect: ["effect", "效应"],
  interval: ["95 % interval", "95% 区间"],
  noInterval: ["no interval", "无区间"],
  paper: ["paper", "论文"],
  beside: ["beside the claim, by", "旁证指标"],

  tablesText: [
    "Ours with half the width of the 95 % interval; below, the paper's value and ours less " +
      "the paper's. Open a value to see where it comes from and what the model answered.",
    "上为我们的结果及 95% 区间半宽，下为论文的数值和两者之差。点开数值可查看来源与模型的回答。",
  ],
  model: ["Model", "模型"],
  breakdown: ["Where the speed comes from", "加速从何而来"],
  notes: ["Notes", "说明"],
  reading: ["How to read it", "如何解读"],
  origin: ["Origin", "来源"],
  difference: ["ours less the paper's", "我们减论文"],
  close: ["Close", "关闭"],
  ours: ["ours", "我们"],

  "not built": ["not built", "未构建"],
  failed: ["failed", "失败"],
  state: ["state", "状态"],
  built: ["built", "已构建"],
  "not swept": ["not swept", "未扫描"],
  "the paper's only": ["the paper's only", "仅论文"],
  bySeed: ["By seed", "逐种子"],
  value: ["value", "数值"],
  measuredBy: ["measured by", "测量阶段"],
  seconds: ["seconds", "秒"],
  command: ["The command that makes it again", "重新生成的命令"],
  copy: ["Copy", "复制"],
  copied: ["Copied", "已复制"],
  lineage: ["Lineage", "谱系"],
  lineageText: [
    "Every stage behind the value, down to the first document. Open a stage to see its settings.",
    "数值背后的每个阶段，直到最初的文档。展开可查看设置。",
  ],
  shownAbove: ["shown above", "见上"],

  answersText: [
    "What the models answered, beside the reference and another row. Marks show what " +
      "differs from the reference.",
    "模型的回答，与参考答案及另一行对照。标记处与参考答案不同。",
  ],
  kind: ["Kind", "类别"],
  evaluate: ["answers to questions", "问答"],
  benchmark: ["exams", "考试"],
  acceptance: ["decoding: acceptance", "解码：接受率"],
  speed: ["decoding: speed", "解码：速度"],
  row: ["Row", "行"],
  other: ["Compare with", "对比"],
  nothing: ["nothing", "无"],
  group: ["Task", "任务"],
  all: ["all", "全部"],
  score: ["Score", "得分"],
  from: ["from", "从"],
  to: ["to", "到"],
  change: ["Change", "变化"],
  gained: ["gained", "提高"],
  lost: ["lost", "降低"],
  same: ["same", "不变"],
  order: ["Order", "排序"],
  asked: ["as asked", "原顺序"],
  lowest: ["lowest score first", "得分由低到高"],
  largest: ["largest change first", "变化由大到小"],
  reference: ["Reference", "参考答案"],
  empty: ["(empty)", "（空）"],
  semicolon: ["; ", "；"],
  comma: [", ", "，"],
  cut: ["cut at the length limit", "被长度上限截断"],
  more: ["Show more", "显示更多"],
  questionsShown: ["questions", "题"],
  loading: ["Unpacking…", "解压中…"],
  noAnswers: ["No predictions are stored for these rows.", "这些行没有保存预测。"],

  curvesText: [
    "Every training stage by step, overlaid by chain; thin lines are seeds. Choose a " +
      "stage, then switch chains on and off.",
    "各训练阶段逐步曲线，按训练链叠放，细线为种子。先选阶段，再开关各链。",
  ],
  stage: ["Stage", "阶段"],
  step: ["step", "步"],
  logarithmic: ["logarithmic", "对数轴"],
  "train/loss": ["training loss", "训练损失"],
  "val/perplexity": ["validation perplexity", "验证困惑度"],
  "train/lr": ["learning rate", "学习率"],
  "train/grad_norm": ["gradient norm", "梯度范数"],
  "train/tokens_per_s": ["tokens per second", "每秒词元"],
  "val/rouge1": ["validation Rouge-1", "验证 Rouge-1"],
  noCurves: ["No training stage is built.", "尚无已构建的训练阶段。"],
  timeText: [
    "Seconds of all built stages behind these tables, by kind.",
    "这些表格背后所有已构建阶段的耗时（秒），按类别。",
  ],
  number: ["number", "数量"],
  ofAll: ["of all", "占比"],
  failuresText: [
    "Stages that failed, with their reason; the traceback is in the store, under unfinished/.",
    "失败的阶段及原因；回溯信息在存储的 unfinished/ 下。",
  ],
  noFailures: ["Nothing failed.", "没有失败。"],
  unbuilt: ["stages are not built", "个阶段未构建"],
  reason: ["reason", "原因"],
  dataText: [
    "What became of the documents when rows were packed, and when a user's files were read.",
    "打包成行以及读取用户文件时，文档的去向。",
  ],
  rows: ["rows", "行"],
  source: ["source", "来源"],
  part: ["part", "部分"],
  documents: ["documents", "文档"],
  tokens: ["tokens", "词元"],
  kept: ["kept", "保留"],
  dropped: ["dropped", "丢弃"],
  cutOver: ["cut over rows", "跨行切分"],
  fill: ["fill", "填充率"],
  lossTokens: ["tokens that bear loss", "计损失词元"],
  problems: ["problems", "问题"],

  toLanguage: ["中文", "English"],
  toDark: ["Dark", "深色"],
  toLight: ["Light", "浅色"],
};

const CHINESE = JSON.parse(document.getElementById("chinese").textContent);
let language = preferred("language", navigator.language.startsWith("zh") ? "zh" : "en");

/** The text of a key in the language of the page; a key without one is data and stays. */
function say(key) {
  const isChinese = language === "zh";
  const texts = WORDS[key];
  if (texts) return texts[isChinese ? 1 : 0];
  return (isChinese && CHINESE[key]) || key;
}

/** A claim with its tolerance: `CPT keeps general ability (margin 0.05)`. */
function sayClaim(text) {
  const [, claim, tolerance, number] = text.match(/^(.*?)(?: \((margin|within) ([^)]*)\))?$/s);
  return tolerance ? `${say(claim)} (${say(tolerance)} ${number})` : say(claim);
}

/** A choice of an earlier visit; some browsers keep none for files. */
function preferred(key, otherwise) {
  try {
    return localStorage.getItem(`soaes.${key}`) || otherwise;
  } catch {
    return otherwise;
  }
}

/** Keep a choice for the next visit where the browser does. */
function prefer(key, value) {
  try {
    localStorage.setItem(`soaes.${key}`, value);
  } catch {
    // the choice holds for this visit
  }
}
