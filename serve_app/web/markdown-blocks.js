/**
 * Markdown into blocks: plain data, no DOM. Every block has `start`, the offset of its first character in the source, so
 * that a stream can tell which part of it is settled. What Markdown does not define is text: HTML has no meaning here.
 */

const MAX_DEPTH = 8;
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]|$)/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}>/;
const MARKER = /^( {0,3})([-*+]|\d{1,9}[.)])(?= |$)/;
const DELIMITER_CELL = /^:?-+:?$/;

/**
 * Blocks of `source`: heading {level, text}, rule, code {language, text, closed}, quote {blocks},
 * list {ordered, first, items: [{start, checked, blocks}]}, table {aligns, header, rows}, paragraph {text}.
 * While `streaming`, an unfinished table counts as one as soon as its first line looks like it.
 */
export function parseBlocks(source, { streaming = false, depth = 0 } = {}) {
  const lines = splitLines(source);
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at].text)) {
      at += 1;
      continue;
    }
    const [block, next] = takeBlock(lines, at, streaming, depth);
    block.start = lines[at].start;
    blocks.push(block);
    at = next;
  }
  return blocks;
}

/** What opens a fenced code block: {mark, language, indent}, or null. */
export function fenceOf(line) {
  const match = FENCE.exec(line);
  if (!match) return null;
  return { mark: match[1], language: match[2].trim().split(/\s+/)[0], indent: line.indexOf(match[1]) };
}

/** Whether `line` ends the code block that `fence` opened. */
export function closesFence(line, fence) {
  const text = line.trim();
  return text.length >= fence.mark.length && text === fence.mark[0].repeat(text.length) && indentOf(line) < 4;
}

/** A line of code without the indentation its fence had. */
export function codeLine(line, fence) {
  return line.slice(Math.min(fence.indent, indentOf(line)));
}

function takeBlock(lines, at, streaming, depth) {
  const line = lines[at].text;
  const fence = fenceOf(line);
  if (fence) return takeCode(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [{ type: "heading", level: heading[1].length, text: headingText(line, heading[1]) }, at + 1];
  if (RULE.test(line)) return [{ type: "rule" }, at + 1];
  if (depth < MAX_DEPTH) {
    if (QUOTE.test(line)) return takeQuote(lines, at, streaming, depth);
    if (MARKER.test(line)) return takeList(lines, at, streaming, depth);
  }
  return takeTable(lines, at, streaming) ?? takeParagraph(lines, at, depth);
}

function takeCode(lines, at, fence) {
  const body = [];
  let next = at + 1;
  let closed = false;
  while (next < lines.length && !closed) {
    closed = closesFence(lines[next].text, fence);
    if (!closed) body.push(codeLine(lines[next].text, fence));
    next += 1;
  }
  return [{ type: "code", language: fence.language, text: body.join("\n"), closed }, next];
}

function takeQuote(lines, at, streaming, depth) {
  const body = [];
  let next = at;
  while (next < lines.length) {
    const line = lines[next].text;
    if (QUOTE.test(line)) body.push(line.replace(/^ {0,3}> ?/, ""));
    else if (isBlank(line) || isBlank(body[body.length - 1]) || interrupts(lines, next)) break;
    else body.push(line);
    next += 1;
  }
  return [{ type: "quote", blocks: parseBlocks(body.join("\n"), { streaming, depth: depth + 1 }) }, next];
}

function takeList(lines, at, streaming, depth) {
  const first = markerOf(lines[at].text);
  const items = [];
  let next = at;
  while (next < lines.length) {
    const marker = markerOf(lines[next].text);
    if (!marker || marker.ordered !== first.ordered || RULE.test(lines[next].text)) break;
    const [item, after] = takeItem(lines, next, marker, streaming, depth);
    items.push(item);
    next = after;
  }
  return [{ type: "list", ordered: first.ordered, first: first.number, items }, next];
}

function takeItem(lines, at, marker, streaming, depth) {
  const body = [lines[at].text.slice(marker.width)];
  // Models often indent what is nested by two spaces, whatever the marker's width.
  const inside = Math.min(marker.width, marker.indent + 2);
  let next = at + 1;
  while (next < lines.length) {
    const line = lines[next].text;
    if (isBlank(line)) {
      const following = lines.slice(next + 1, next + 4).find((later) => !isBlank(later.text));
      if (!following || indentOf(following.text) < inside) break;
      body.push("");
    } else if (indentOf(line) >= inside) {
      body.push(line.slice(Math.min(marker.width, indentOf(line))));
    } else if (markerOf(line)?.ordered === marker.ordered || isBlank(body[body.length - 1]) || interrupts(lines, next)) {
      break;
    } else {
      body.push(line);
    }
    next += 1;
  }
  // Blank lines between two items belong to neither.
  let after = next;
  while (after < lines.length && isBlank(lines[after].text)) after += 1;
  const continues = after < lines.length && MARKER.test(lines[after].text);
  const task = /^\[([ xX])\] /.exec(body[0]);
  if (task) body[0] = body[0].slice(4);
  const item = {
    start: lines[at].start,
    checked: task ? task[1] !== " " : null,
    blocks: parseBlocks(body.join("\n"), { streaming, depth: depth + 1 }),
  };
  return [item, continues ? after : next];
}

function takeTable(lines, at, streaming) {
  const line = lines[at].text;
  if (!line.includes("|")) return null;
  const header = cellsOf(line);
  const aligns = at + 1 < lines.length ? alignsOf(lines[at + 1].text) : null;
  if (!aligns || aligns.length !== header.length) {
    const unfinished = streaming && at + 2 >= lines.length && line.trim().startsWith("|") && header.length > 1;
    if (!unfinished || (at + 1 < lines.length && !/^[\s|:-]*$/.test(lines[at + 1].text))) return null;
    return [{ type: "table", aligns: header.map(() => null), header, rows: [] }, lines.length];
  }
  const rows = [];
  let next = at + 2;
  while (next < lines.length && !isBlank(lines[next].text) && !interrupts(lines, next, false)) {
    const cells = cellsOf(lines[next].text);
    rows.push(header.map((_, column) => cells[column] ?? ""));
    next += 1;
  }
  return [{ type: "table", aligns, header, rows }, next];
}

function takeParagraph(lines, at, depth) {
  const body = [lines[at].text];
  let next = at + 1;
  while (next < lines.length && !isBlank(lines[next].text) && !(depth < MAX_DEPTH && interrupts(lines, next))) {
    body.push(lines[next].text);
    next += 1;
  }
  return [{ type: "paragraph", text: body.map((line) => line.trimStart()).join("\n").trimEnd() }, next];
}

/** Whether the line begins a block of its own even without a blank line before it. */
function interrupts(lines, at, tables = true) {
  const line = lines[at].text;
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line)) return true;
  const marker = markerOf(line);
  if (marker) return !isBlank(line.slice(marker.width)) && (!marker.ordered || marker.number === 1);
  if (!tables || !line.includes("|") || at + 1 >= lines.length) return false;
  return alignsOf(lines[at + 1].text)?.length === cellsOf(line).length;
}

function markerOf(line) {
  const match = MARKER.exec(line);
  if (!match) return null;
  const bare = match[0].length;
  const spaces = indentOf(line.slice(bare));
  const number = Number.parseInt(match[2], 10);
  return {
    indent: match[1].length,
    width: bare + (spaces >= 1 && spaces <= 4 ? spaces : 1),
    ordered: !Number.isNaN(number),
    number: Number.isNaN(number) ? 1 : number,
  };
}

function headingText(line, marks) {
  const text = line.trim().slice(marks.length).trim();
  const bare = text.replace(/#+$/, "");
  return bare === "" || /[ \t]$/.test(bare) ? bare.trim() : text;
}

function alignsOf(line) {
  if (!line.includes("-") || !/^[\s|:-]+$/.test(line)) return null;
  const cells = cellsOf(line);
  if (!cells.every((cell) => DELIMITER_CELL.test(cell))) return null;
  if (cells.length === 1 && !line.includes("|")) return null;
  return cells.map((cell) => {
    if (cell.endsWith(":")) return cell.startsWith(":") ? "center" : "right";
    return cell.startsWith(":") ? "left" : null;
  });
}

function cellsOf(line) {
  const text = line.trim();
  const cells = [];
  let cell = "";
  for (let at = text.startsWith("|") ? 1 : 0; at < text.length; at += 1) {
    if (text[at] === "\\" && text[at + 1] === "|") {
      cell += "|";
      at += 1;
    } else if (text[at] === "|") {
      cells.push(cell.trim());
      cell = "";
    } else {
      cell += text[at];
    }
  }
  if (cell.trim() !== "" || !text.endsWith("|")) cells.push(cell.trim());
  return cells;
}

function splitLines(source) {
  const lines = [];
  let start = 0;
  while (start < source.length) {
    let end = source.indexOf("\n", start);
    if (end === -1) end = source.length;
    lines.push({ start, text: expandTabs(source.slice(start, end).replace(/\r$/, "")) });
    start = end + 1;
  }
  return lines;
}

function expandTabs(line) {
  return /^ *\t/.test(line) ? line.replace(/^[ \t]+/, (indent) => indent.replaceAll("\t", "    ")) : line;
}

function indentOf(line) {
  let at = 0;
  while (line[at] === " ") at += 1;
  return at;
}

function isBlank(line) {
  return line.trim() === "";
}
