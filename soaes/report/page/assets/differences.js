"use strict";
// What differs between two texts, by words.

const SEGMENTER = window.Intl?.Segmenter ? new Intl.Segmenter("zh", { granularity: "word" }) : null;

function words(text) {
  return SEGMENTER ? Array.from(SEGMENTER.segment(text), (part) => part.segment) : Array.from(text);
}

/** The text with <mark> around the words that are not in a longest common subsequence. */
function marked(text, reference) {
  const [own, others] = [words(text), words(reference)];
  const common = commonWords(own, others);
  const parts = [];
  own.forEach((word, index) => {
    const last = parts.at(-1);
    if (last && last.common === common[index]) last.text += word;
    else parts.push({ text: word, common: common[index] });
  });
  return parts.map((part) => (part.common ? part.text : el("mark", {}, part.text)));
}

/** Of each word of `own`, whether it is in a longest common subsequence with `others`. */
function commonWords(own, others) {
  const width = others.length + 1;
  const lengths = new Uint16Array((own.length + 1) * width);
  for (let i = own.length - 1; i >= 0; i--) {
    for (let j = others.length - 1; j >= 0; j--) {
      lengths[i * width + j] =
        own[i] === others[j]
          ? lengths[(i + 1) * width + j + 1] + 1
          : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  const common = new Array(own.length).fill(false);
  let [i, j] = [0, 0];
  while (i < own.length && j < others.length) {
    if (own[i] === others[j]) {
      common[i] = true;
      [i, j] = [i + 1, j + 1];
    } else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return common;
}
