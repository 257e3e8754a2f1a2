/**
 * Reads the YAML of this repository, and refuses all other YAML: block mappings and sequences
 * indented by two spaces, plain and quoted words, `[…]` and `{}` of words, `|` blocks, comments on
 * separate lines. Every YAML parser reads such a file the same way.
 */
export type Yaml = string | number | boolean | null | Yaml[] | { [key: string]: Yaml };

type Line = { indent: number; text: string; number: number; raw: string };

export function parseYaml(text: string): Yaml[] {
  return text
    .split(/^---$/m)
    .map((document) => parseDocument(document))
    .filter((document) => document !== null);
}

function parseDocument(text: string): Yaml {
  const lines = text.split("\n").map((raw, index): Line => {
    if (raw.includes("\t")) throw new Error(`line ${index + 1}: a tab`);
    const indent = raw.length - raw.trimStart().length;
    return { indent, text: raw.trim(), number: index + 1, raw };
  });
  const reader = { lines, at: 0 };
  skip(reader);
  if (reader.at >= lines.length) return null;
  const value = parseBlock(reader, lines[reader.at]!.indent);
  skip(reader);
  if (reader.at < lines.length) throw new Error(`line ${lines[reader.at]!.number}: not expected here`);
  return value;
}

type Reader = { lines: Line[]; at: number };

function skip(reader: Reader): void {
  while (reader.at < reader.lines.length && /^(#|$)/.test(reader.lines[reader.at]!.text)) reader.at++;
}

function peek(reader: Reader): Line | undefined {
  skip(reader);
  return reader.lines[reader.at];
}

function parseBlock(reader: Reader, indent: number): Yaml {
  return peek(reader)!.text.startsWith("- ") ? parseList(reader, indent) : parseMapping(reader, indent);
}

function parseList(reader: Reader, indent: number): Yaml[] {
  const items: Yaml[] = [];
  for (let line = peek(reader); line && line.indent === indent; line = peek(reader)) {
    if (!line.text.startsWith("- ")) break;
    const rest = line.text.slice(2);
    if (keyOf(rest)) {
      // "- key: …" is a mapping that begins two columns further in.
      reader.lines[reader.at] = { ...line, indent: indent + 2, text: rest };
      items.push(parseMapping(reader, indent + 2));
    } else {
      reader.at++;
      items.push(word(rest, line));
    }
  }
  return items;
}

function parseMapping(reader: Reader, indent: number): Yaml {
  const mapping: { [key: string]: Yaml } = {};
  for (let line = peek(reader); line && line.indent === indent; line = peek(reader)) {
    const found = keyOf(line.text);
    if (!found) {
      if (line.text.startsWith("- ")) break;
      throw new Error(`line ${line.number}: neither a key nor an item: ${line.text}`);
    }
    if (Object.hasOwn(mapping, found.key))
      throw new Error(`line ${line.number}: ${found.key} is there twice`);
    reader.at++;
    mapping[found.key] = readValue(reader, found.rest, line, indent);
  }
  const next = peek(reader);
  if (next && next.indent > indent) throw new Error(`line ${next.number}: indented too far`);
  return mapping;
}

function readValue(reader: Reader, rest: string, line: Line, indent: number): Yaml {
  if (rest === "|") return block(reader, indent);
  if (rest !== "") return word(rest, line);
  const next = peek(reader);
  if (!next || next.indent < indent || (next.indent === indent && !next.text.startsWith("- "))) return null;
  if (next.indent !== indent && next.indent !== indent + 2) {
    throw new Error(`line ${next.number}: indented by ${next.indent - indent}, not by 2`);
  }
  return parseBlock(reader, next.indent);
}

/** The lines of a `|` block, without their indent. */
function block(reader: Reader, indent: number): string {
  const lines: string[] = [];
  while (reader.at < reader.lines.length) {
    const line = reader.lines[reader.at]!;
    if (line.text !== "" && line.indent <= indent) break;
    lines.push(line.raw.slice(indent + 2));
    reader.at++;
  }
  return `${lines.join("\n").trimEnd()}\n`;
}

function keyOf(text: string): { key: string; rest: string } | undefined {
  const match = /^([\w./$-]+|"[^"]+"):(?: (.*))?$/.exec(text);
  return match ? { key: match[1]!.replaceAll('"', ""), rest: match[2] ?? "" } : undefined;
}

function word(text: string, line: Line): Yaml {
  if (text === "{}") return {};
  if (text.startsWith("[")) {
    if (!text.endsWith("]")) throw new Error(`line ${line.number}: a list that does not end`);
    const inner = text.slice(1, -1).trim();
    return inner === "" ? [] : inner.split(/,\s*/).map((part) => word(part, line));
  }
  if (text.startsWith('"')) return JSON.parse(text) as string;
  if (text.startsWith("'")) {
    if (!/^'(?:[^']|'')*'$/.test(text)) throw new Error(`line ${line.number}: a quote that does not end`);
    return text.slice(1, -1).replaceAll("''", "'");
  }
  if (/^[&*!%@`>{]/.test(text) || text.includes(" #") || /: /.test(text)) {
    throw new Error(`line ${line.number}: quote this: ${text}`);
  }
  if (text === "true" || text === "false") return text === "true";
  if (text === "null") return null;
  return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text;
}
