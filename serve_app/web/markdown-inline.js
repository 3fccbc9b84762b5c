/**
 * The inside of a paragraph into spans: plain data, no DOM. One pass over the text, with a stack of what is open; the
 * stack's depth is bounded, so hostile text costs no more than other text of its length.
 *
 * Spans: text {text}, code {text}, break, strong | em | del {children}, link {href, children}, image {href, text}.
 * `href` is null where the address is not one that may be followed.
 */

const MAX_OPEN = 24;
const MAX_ADDRESS = 2048;
const PLAIN = /[^\\`*_~[\]!<\nh]+/y;
const ADDRESS = /https?:\/\/[^\s<>"`\\]+/y;
const ANGLE = /<((?:https?:\/\/|mailto:)[^\s<>]+)>/iy;
const LINE_BREAK = /<br ?\/?>/iy;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const SCHEMES = new Set(["http:", "https:", "mailto:"]);

/** The address to follow for `text`, or null: absolute http, https and mailto only. */
export function safeAddress(text) {
  if (text.length > MAX_ADDRESS || !/^(?:https?:\/\/|mailto:)/i.test(text)) return null;
  try {
    const address = new URL(text);
    return SCHEMES.has(address.protocol) ? address.href : null;
  } catch {
    return null;
  }
}

/** Spans of `source`. While `streaming`, what is open at the end is shown as it will most likely become. */
export function parseInline(source, streaming = false) {
  return new InlineParser(streaming ? source.replace(/[*_~`]+$/, "") : source, streaming).parse();
}

class InlineParser {
  constructor(source, streaming) {
    this.source = source;
    this.streaming = streaming;
    this.at = 0;
    this.stack = [{ mark: "", children: [] }];
    this.backticks = backtickRuns(source);
    this.lastLink = Math.max(source.lastIndexOf("]("), streaming ? source.lastIndexOf("[") : -1);
  }

  parse() {
    while (this.at < this.source.length) this.#step();
    while (this.stack.length > 1) this.#fold(this.streaming);
    return this.stack[0].children;
  }

  #step() {
    const { source } = this;
    const char = source[this.at];
    switch (char) {
      case "\\":
        return this.#escape();
      case "`":
        return this.#code();
      case "*":
      case "_":
      case "~":
        return this.#emphasis(char);
      case "!":
        if (source[this.at + 1] === "[") return this.#open("![");
        return this.#text(char);
      case "[":
        return this.#open("[");
      case "]":
        return this.#close();
      case "<":
        return this.#angle();
      case "\n":
        return this.#newline();
      case "h":
        return this.#address();
      default:
        PLAIN.lastIndex = this.at;
        return this.#text(PLAIN.exec(source)[0]);
    }
  }

  get #top() {
    return this.stack[this.stack.length - 1];
  }

  #push(span) {
    this.#top.children.push(span);
  }

  #text(text) {
    this.#push({ type: "text", text });
    this.at += text.length;
  }

  #escape() {
    const next = this.source[this.at + 1];
    if (next === "\n") {
      this.#push({ type: "break" });
      this.at += 2;
    } else if (next !== undefined && ESCAPABLE.test(next)) {
      this.#push({ type: "text", text: next });
      this.at += 2;
    } else {
      this.#text("\\");
    }
  }

  #newline() {
    const last = this.#top.children[this.#top.children.length - 1];
    if (last?.type === "text") last.text = last.text.trimEnd();
    this.#push({ type: "break" });
    this.at += 1;
    while (this.source[this.at] === " ") this.at += 1;
  }

  #code() {
    const length = runLength(this.source, this.at);
    const begin = this.at + length;
    const ends = this.backticks.get(length);
    while (ends.length > 0 && ends[ends.length - 1] < begin) ends.pop();
    let end = ends[ends.length - 1];
    if (end === undefined) {
      if (!this.streaming || begin === this.source.length) return this.#text("`".repeat(length));
      end = this.source.length;
    }
    let text = this.source.slice(begin, end).replaceAll("\n", " ");
    if (/^ .*[^ ].* $/.test(text)) text = text.slice(1, -1);
    this.#push({ type: "code", text });
    this.at = Math.min(end + length, this.source.length);
    return undefined;
  }

  #emphasis(mark) {
    const { source } = this;
    const run = runLength(source, this.at);
    const before = source[this.at - 1] ?? " ";
    const after = source[this.at + run] ?? " ";
    const opens = !isSpace(after) && (!PUNCTUATION.test(after) || isSpace(before) || PUNCTUATION.test(before));
    const closes = !isSpace(before) && (!PUNCTUATION.test(before) || isSpace(after) || PUNCTUATION.test(after));
    const inWord = mark === "_" && opens && closes;
    const canOpen = opens && (!inWord || PUNCTUATION.test(before));
    const canClose = closes && (!inWord || PUNCTUATION.test(after));
    this.at += run;
    let left = run;
    if (mark === "~" && run !== 2) {
      this.#push({ type: "text", text: mark.repeat(run) });
      return;
    }
    while (left > 0 && canClose) {
      const opener = this.#opener(mark, run, canOpen);
      if (opener === -1) break;
      while (this.stack.length - 1 > opener) this.#fold(false);
      const frame = this.#top;
      const used = Math.min(2, frame.count, left);
      const span = { type: mark === "~" ? "del" : used === 2 ? "strong" : "em", children: frame.children };
      frame.count -= used;
      left -= used;
      if (frame.count === 0) {
        this.stack.pop();
        this.#push(span);
      } else {
        frame.children = [span];
      }
    }
    if (left === 0) return;
    if (canOpen && this.stack.length < MAX_OPEN) {
      this.stack.push({ mark, count: left, run, both: canClose, children: [] });
    } else {
      this.#push({ type: "text", text: mark.repeat(left) });
    }
  }

  /** The innermost open run this one may close, or -1; what is inside a bracket stays inside. */
  #opener(mark, run, canOpen) {
    for (let at = this.stack.length - 1; at > 0; at -= 1) {
      const frame = this.stack[at];
      if (frame.mark.endsWith("[")) return -1;
      if (frame.mark !== mark) continue;
      const unequal = (frame.both || canOpen) && (frame.run + run) % 3 === 0 && (frame.run % 3 !== 0 || run % 3 !== 0);
      return unequal ? -1 : at;
    }
    return -1;
  }

  #open(mark) {
    if (this.at > this.lastLink || this.stack.length >= MAX_OPEN) return this.#text(mark);
    this.stack.push({ mark, children: [] });
    this.at += mark.length;
    return undefined;
  }

  #close() {
    const opener = this.stack.findLastIndex((frame) => frame.mark.endsWith("["));
    if (opener === -1) return this.#text("]");
    const target = this.#target(this.at + 1);
    if (target === null) {
      const [frame] = this.stack.splice(opener, 1);
      this.stack[opener - 1].children.push({ type: "text", text: frame.mark }, ...frame.children);
      return this.#text("]");
    }
    while (this.stack.length - 1 > opener) this.#fold(false);
    const frame = this.stack.pop();
    const href = safeAddress(target.address);
    if (frame.mark === "![") this.#push({ type: "image", href, text: plainText(frame.children) });
    else this.#push({ type: "link", href, children: withoutLinks(frame.children) });
    this.at = target.end;
    return undefined;
  }

  /** The `(address "title")` at `at`: {address, end}, or null. */
  #target(at) {
    const { source } = this;
    if (source[at] !== "(") return null;
    let begin = at + 1;
    while (isBlankChar(source[begin])) begin += 1;
    const limit = Math.min(source.length, begin + MAX_ADDRESS);
    let end = begin;
    let address;
    if (source[begin] === "<") {
      end = source.indexOf(">", begin);
      if (end === -1 || end > limit) return this.#unfinished(limit);
      address = source.slice(begin + 1, end);
      end += 1;
    } else {
      for (let nested = 0; end < limit; end += 1) {
        const char = source[end];
        if (isSpace(char)) break;
        if (char === "\\") end += 1;
        else if (char === "(") nested += 1;
        else if (char === ")") {
          if (nested === 0) break;
          nested -= 1;
        }
      }
      address = source.slice(begin, end);
    }
    while (isBlankChar(source[end])) end += 1;
    const quote = { '"': '"', "'": "'", "(": ")" }[source[end]];
    if (quote) {
      end = source.indexOf(quote, end + 1);
      if (end === -1 || end > limit) return this.#unfinished(limit);
      end += 1;
      while (isBlankChar(source[end])) end += 1;
    }
    if (source[end] === ")") return { address, end: end + 1 };
    return end >= source.length ? this.#unfinished(limit) : null;
  }

  /** An address that is still coming is not shown piece by piece. */
  #unfinished(limit) {
    return this.streaming && limit === this.source.length ? { address: "", end: limit } : null;
  }

  #angle() {
    ANGLE.lastIndex = this.at;
    const link = ANGLE.exec(this.source);
    if (link) {
      const href = safeAddress(link[1]);
      this.#push({ type: "link", href, children: [{ type: "text", text: link[1] }] });
      this.at = ANGLE.lastIndex;
      return;
    }
    LINE_BREAK.lastIndex = this.at;
    const lineBreak = LINE_BREAK.exec(this.source);
    if (lineBreak) {
      this.#push({ type: "break" });
      this.at += lineBreak[0].length;
      return;
    }
    this.#text("<");
  }

  #address() {
    ADDRESS.lastIndex = this.at;
    const found = /\w/.test(this.source[this.at - 1] ?? " ") ? null : ADDRESS.exec(this.source);
    const text = found ? trimAddress(found[0]) : "";
    const href = text ? safeAddress(text) : null;
    if (href === null) {
      PLAIN.lastIndex = this.at + 1;
      this.#text(`h${PLAIN.exec(this.source)?.[0] ?? ""}`);
      return;
    }
    this.#push({ type: "link", href, children: [{ type: "text", text }] });
    this.at += text.length;
  }

  /** Takes the top frame off; unless `finish` and strong, its marks are text after all. */
  #fold(finish) {
    const frame = this.stack.pop();
    if (finish && frame.children.length > 0 && (frame.mark === "*" || frame.mark === "_") && frame.count === 2) {
      this.#push({ type: "strong", children: frame.children });
      return;
    }
    const marks = frame.mark.endsWith("[") ? frame.mark : frame.mark.repeat(frame.count);
    this.#top.children.push({ type: "text", text: marks }, ...frame.children);
  }
}

/** The text of spans, without their form. */
export function plainText(spans) {
  return spans.map((span) => span.text ?? (span.type === "break" ? " " : plainText(span.children))).join("");
}

function withoutLinks(spans) {
  return spans.flatMap((span) => {
    if (span.type === "link") return withoutLinks(span.children);
    return span.children ? [{ ...span, children: withoutLinks(span.children) }] : [span];
  });
}

/** Where runs of backticks stand, by their length, the last first. */
function backtickRuns(source) {
  const runs = new Map();
  for (let at = source.indexOf("`"); at !== -1; at = source.indexOf("`", at)) {
    const length = runLength(source, at);
    if (!runs.has(length)) runs.set(length, []);
    runs.get(length).push(at);
    at += length;
  }
  for (const starts of runs.values()) starts.reverse();
  return runs;
}

function runLength(source, at) {
  let end = at;
  while (source[end] === source[at]) end += 1;
  return end - at;
}

/** Punctuation after an address, and a bracket it did not open, belong to the sentence. */
function trimAddress(text) {
  let end = text.length;
  for (;;) {
    const last = text[end - 1];
    if (".,;:!?'*_~".includes(last)) end -= 1;
    else if (last === ")" && count(text, ")", end) > count(text, "(", end)) end -= 1;
    else if (last === "]" && count(text, "]", end) > count(text, "[", end)) end -= 1;
    else return text.slice(0, end);
  }
}

function count(text, char, end) {
  let found = 0;
  for (let at = 0; at < end; at += 1) if (text[at] === char) found += 1;
  return found;
}

function isSpace(char) {
  return char === undefined || /\s/.test(char);
}

function isBlankChar(char) {
  return char === " " || char === "\n" || char === "\t";
}
