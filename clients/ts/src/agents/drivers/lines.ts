import { StringDecoder } from "node:string_decoder";

/**
 * Maximum bytes of a parsed line; of a longer line only the beginning is kept, as text. Agents put
 * whole files into a line.
 */
const LINE_BYTES_MAX = 8 * 1024 * 1024;

/** A line of an agent's output. */
export interface Line {
  text: string;
  /** The line was longer than {@link LINE_BYTES_MAX}; `text` is its beginning. */
  isCut: boolean;
}

/** Bytes kept of a line beyond the bound. */
const CUT_LINE_BYTES = 4 * 1024;

/**
 * Splits a stream of bytes into lines in bounded memory: a line beyond the bound is dropped at once
 * except for its beginning. Bytes outside UTF-8 become U+FFFD. `end` emits the last line, with or
 * without a line feed.
 */
export class LineSplitter {
  readonly #onLine: (line: Line) => void;
  #parts: Buffer[] = [];
  #bytes = 0;
  #isCut = false;

  constructor(onLine: (line: Line) => void) {
    this.#onLine = onLine;
  }

  add(data: Buffer): void {
    let start = 0;
    for (let end = data.indexOf(0x0a); end >= 0; end = data.indexOf(0x0a, start)) {
      this.#keep(data.subarray(start, end));
      this.#flush();
      start = end + 1;
    }
    if (start < data.length) this.#keep(data.subarray(start));
  }

  end(): void {
    if (this.#bytes > 0 || this.#isCut) this.#flush();
  }

  #keep(part: Buffer): void {
    if (this.#isCut || part.length === 0) return;
    this.#parts.push(part);
    this.#bytes += part.length;
    if (this.#bytes <= LINE_BYTES_MAX) return;
    this.#isCut = true;
    // A copy: a slice would keep the whole read buffer in memory.
    const head = Buffer.from(Buffer.concat(this.#parts).subarray(0, CUT_LINE_BYTES));
    this.#parts = [head];
    this.#bytes = head.length;
  }

  #flush(): void {
    const bytes = Buffer.concat(this.#parts);
    const isCut = this.#isCut;
    this.#parts = [];
    this.#bytes = 0;
    this.#isCut = false;
    // The decoder drops a character split by the cut.
    const decoder = new StringDecoder("utf8");
    const text = isCut ? decoder.write(bytes) : bytes.toString("utf8");
    this.#onLine({ text: text.endsWith("\r") ? text.slice(0, -1) : text, isCut });
  }
}

/** Maximum nesting of a parsed value; agents never need more. */
const DEPTH_MAX = 64;

/**
 * The JSON object of a line; undefined for other values, for text without JSON and for nesting
 * beyond the bound. Never throws.
 */
export function objectOf(line: Line): Record<string, unknown> | undefined {
  if (line.isCut || !line.text.trimStart().startsWith("{") || isTooDeep(line.text)) return undefined;
  try {
    const value: unknown = JSON.parse(line.text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** True if brackets outside strings are nested deeper than the bound. */
function isTooDeep(text: string): boolean {
  let depth = 0;
  let isString = false;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (isString) {
      if (code === 0x5c) index += 1;
      else if (code === 0x22) isString = false;
    } else if (code === 0x22) isString = true;
    else if (code === 0x7b || code === 0x5b) {
      depth += 1;
      if (depth > DEPTH_MAX) return true;
    } else if (code === 0x7d || code === 0x5d) depth -= 1;
  }
  return false;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The field if its value is a string. */
export function textAt(value: unknown, ...path: string[]): string | undefined {
  const found = at(value, ...path);
  return typeof found === "string" ? found : undefined;
}

/** The field if its value is a finite number. */
export function numberAt(value: unknown, ...path: string[]): number | undefined {
  const found = at(value, ...path);
  return typeof found === "number" && Number.isFinite(found) ? found : undefined;
}

/** The field if its value is a list, otherwise an empty list. */
export function listAt(value: unknown, ...path: string[]): unknown[] {
  const found = at(value, ...path);
  return Array.isArray(found) ? found : [];
}

export function at(value: unknown, ...path: string[]): unknown {
  let here = value;
  for (const name of path) {
    if (!isObject(here) || !Object.hasOwn(here, name)) return undefined;
    here = here[name];
  }
  return here;
}
