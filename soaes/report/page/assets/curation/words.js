"use strict";
// Every string of the page of a curation, in both languages, beside those of language.js. Names of
// steps and rules are translated by chinese.json; texts of documents stay as they are.

Object.assign(WORDS, {
  title: ["What became of the documents", "文档去向"],
  read: ["read", "读入"],
  characters: ["characters", "字符"],
  estimated: ["tokens, estimated", "词元（估计）"],
  newest: ["newest step", "最新步骤"],
  inStore: ["in the store", "存储目录"],
  dataFolder: ["the data folder", "数据目录"],
  partial: ["Not built yet:", "尚未构建："],
  tokensText: ["Tokens are estimated: one for … characters.", "词元为估计值：每 … 字符一个。"],
  keptCharacters: ["kept", "保留"],
  removedCharacters: ["removed by cleaning", "清洗去除"],
  warned: ["takes much", "去除过多"],
  and: ["and", "和"],

  steps: ["Steps", "步骤"],
  stepsText: [
    "What came into each step and what went on. The bar is the text that is left of all that was " +
      "read; its red end is what this step took. Open a step to see its settings.",
    "每一步的输入与输出。长条为剩余文本占读入总量的比例，红色部分为该步去除的文本。展开可查看设置。",
  ],
  step: ["step", "步骤"],
  settings: ["settings", "设置"],
  folder: ["folder", "目录"],
  seconds: ["seconds", "秒"],
  rejected: ["rejected", "拒收"],
  nothingTaken: ["nothing is taken", "没有去除"],

  rules: ["Rules", "规则"],
  rulesText: [
    "What each rule did. Open a rule to see up to 20 samples of its work: before, with what it " +
      "removed marked, and after. ␣ is a blank, ⏎ a line break.",
    "每条规则的作用。展开可查看至多 20 个样例：处理前（标出去除的字符）与处理后。␣ 为空格，⏎ 为换行。",
  ],
  rule: ["rule", "规则"],
  boilerplate: ["boilerplate: …", "模板文字：…"],
  holdsQuestion: ["holds a question of …", "含有 … 的题"],
  shorter: ["shorter than … characters", "少于 … 字符"],
  changed: ["changed", "改动"],
  effect: ["effect", "作用"],
  taken: ["characters taken", "去除字符"],
  ofStep: ["of the step's text", "占该步文本"],
  before: ["before", "处理前"],
  after: ["after", "处理后"],
  samples: ["samples", "样例"],
  idle: ["These rules ran and found nothing:", "以下规则已运行，没有命中："],
  toDrops: ["See what it dropped", "查看被丢弃的内容"],
  noRules: ["No rule changed or dropped anything.", "没有规则改动或丢弃内容。"],

  duplicates: ["Duplicates", "重复"],
  duplicatesText: [
    "Documents that were dropped for another one, beside it. What differs is marked. Sentences with " +
      "the same letters and digits count as equal, and most of them are left out.",
    "被丢弃的文档与留下的文档对照。标出不同之处；文字与数字相同的句子视为相同，大多略去。",
  ],
  similarity: ["similarity", "相似度"],
  keptDocument: ["kept", "保留"],
  droppedDocument: ["dropped", "丢弃"],
  equalCharacters: ["equal characters", "个相同字符"],
  moreDifferences: ["further differences", "处其他不同"],
  onlyBeginnings: ["Only their beginnings were compared.", "仅比较了开头部分。"],
  noDuplicates: ["No document was dropped for another one.", "没有文档因重复而被丢弃。"],
  exactToo: [
    "Exact duplicates need no comparison; they are listed under “Drops”.",
    "完全重复的文档无须对照，列于“丢弃”。",
  ],
  equalTexts: ["The texts are equal.", "文本相同。"],

  contamination: ["Contamination", "测试题污染"],
  contaminationText: [
    "Documents that hold a question of an exam or of a held-out split. They are dropped whole.",
    "含有考试题或留出问题的文档，整篇丢弃。",
  ],
  question: ["question", "题干"],
  where: ["where it stands", "所在位置"],
  noContamination: ["No document holds a held-out question.", "没有文档含有留出的问题。"],
  alsoLeftOut: ["Also left out of other data:", "其他数据中也去除了："],

  selection: ["Selection", "选择"],
  selectionText: [
    "How relevant the documents are to the domain, and what each threshold of relevance would keep.",
    "文档与领域的相关度，以及各相关度阈值保留的内容。",
  ],
  relevance: ["relevance", "相关度"],
  scored: ["scored", "已评分"],
  threshold: ["threshold", "阈值"],
  precision: ["precision", "精确率"],
  recall: ["recall", "召回率"],
  judged: [
    "labelled passages are behind precision and recall, each by the inverse of the probability " +
      "with which it was drawn, judged by scorers that have seen neither it nor its family.",
    "个标注段落用于计算精确率与召回率：按抽样概率的倒数加权，评分器未见过该段落及其文档族。",
  ],
  relevanceOf: ["Relevance of the documents", "文档的相关度"],
  chosen: ["in use", "当前"],
  noThreshold: ["no threshold in use", "未设阈值"],
  frontier: ["What a threshold keeps", "各阈值的取舍"],
  relevanceBy: ["relevance by", "相关度依据"],
  auc: ["AUC, unseen families", "AUC（未见的文档族）"],
  labelsFound: ["labels found", "找到的标注"],
  asOf: ["as of", "截至"],
  noScores: ["Relevance was not scored.", "没有计算相关度。"],
  noLabels: [
    "Without labels there is neither precision nor recall.",
    "没有标注，故无精确率与召回率。",
  ],
  tokensKept: ["tokens kept", "保留词元"],

  shares: ["Sources", "来源"],
  sharesText: [
    "How much of the text comes from each folder, read and kept, and how many documents speak of " +
      "each topic of the domain.",
    "各目录的文本占比（读入与保留），以及提及各领域主题的文档数。",
  ],
  origin: ["origin", "来源"],
  tier: ["tier", "等级"],
  share: ["share of the text", "文本占比"],
  moreOrigins: ["further origins are not shown", "个其他来源未列出"],
  topic: ["topic", "主题"],
  topics: ["Topics", "主题"],
  readAndKept: ["read → kept", "读入 → 保留"],

  lengths: ["Lengths", "长度"],
  lengthsText: [
    "Documents by their length in characters: all that were read, and those that are kept.",
    "按字符长度统计的文档数：读入的全部与保留的部分。",
  ],
  textByLength: ["Text by the length of its document", "文本按文档长度分布"],
  documentsByLength: ["Documents by length", "文档按长度分布"],
  length: ["characters of a document", "文档字符数"],

  drops: ["Drops", "丢弃"],
  dropsText: [
    "Every document that a rule dropped, and every file or record that became no document.",
    "规则丢弃的每篇文档，以及未能成为文档的文件或记录。",
  ],
  listed: ["are listed; all stand in", "条已列出；全部见"],
  noDrops: ["Nothing was dropped.", "没有丢弃任何内容。"],
  file: ["file", "文件"],
  number: ["number", "数量"],
  standsFor: ["stands for it", "由其代表"],

  data: ["Data", "数据"],
  dataText: [
    "What the training data hold of each kind, and lines of the files that could not be used.",
    "训练数据中各类数据的数量，以及无法使用的文件行。",
  ],
  kind: ["kind", "类别"],
  files: ["files", "文件数"],
  droppedBecause: ["dropped", "丢弃"],
  noData: ["The data folder is not built.", "数据目录尚未构建。"],
});
