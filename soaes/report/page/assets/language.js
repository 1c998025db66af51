"use strict";
// The language of the page: words that all pages have, and `say`. A page adds its own to WORDS.

const WORDS = {
  skip: ["Skip to content", "跳到正文"],
  sections: ["Sections", "目录"],
  close: ["Close", "关闭"],
  more: ["Show more", "显示更多"],
  loading: ["Unpacking…", "解压中…"],
  empty: ["(empty)", "（空）"],
  semicolon: ["; ", "；"],
  comma: [", ", "，"],
  colon: [": ", "："],
  all: ["all", "全部"],
  nothing: ["nothing", "无"],
  source: ["source", "来源"],
  documents: ["documents", "文档"],
  tokens: ["tokens", "词元"],
  kept: ["kept", "保留"],
  dropped: ["dropped", "丢弃"],
  reason: ["reason", "原因"],
  problems: ["problems", "问题"],
  toLanguage: ["中文", "English"],
  toDark: ["Dark", "深色"],
  toLight: ["Light", "浅色"],
};

// Translations of texts of the data: titles, claims, names of rules. Any other text stays as it is.
const CHINESE = JSON.parse(document.getElementById("chinese").textContent);
let language = preferred("language", navigator.language.startsWith("zh") ? "zh" : "en");

/** The text of a key in the language of the page; a key without one is data and stays. */
function say(key) {
  const isChinese = language === "zh";
  const texts = WORDS[key];
  if (texts) return texts[isChinese ? 1 : 0];
  return (isChinese && CHINESE[key]) || key;
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
