/** A value's place in the file: keys, and indexes of lists. */
export type KeyPath = readonly (string | number)[];

/**
 * Returns a function for the line (from 1) of a path's value, or of the nearest enclosing value;
 * undefined for a path missing in the text. The TOML parser keeps no positions, so the text is read
 * again; the text must have been parsed before.
 */
export function findPlaces(text: string): (path: KeyPath) => number | undefined {
  const lines = new PlaceReader(text).read();
  return (path) => {
    for (let length = path.length; length > 0; length--) {
      const line = lines.get(placeKey(path.slice(0, length)));
      if (line !== undefined) return line;
    }
    return undefined;
  };
}

/** A path as the key of a map. */
export function placeKey(path: KeyPath): string {
  return JSON.stringify(path);
}

/** Reads valid TOML for the positions of its keys. */
class PlaceReader {
  readonly #text: string;
  #at = 0;
  #line = 1;
  readonly #lines = new Map<string, number>();
  /** Number of tables so far for each `[[list]]`. */
  readonly #lengths = new Map<string, number>();

  constructor(text: string) {
    this.#text = text;
  }

  read(): Map<string, number> {
    let table: KeyPath = [];
    for (this.#skip(); this.#at < this.#text.length; this.#skip()) {
      if (this.#eat("[[")) table = this.#header(true);
      else if (this.#eat("[")) table = this.#header(false);
      else this.#pair(table);
      this.#skipLine();
    }
    return this.#lines;
  }

  #header(isList: boolean): KeyPath {
    const keys = this.#dottedKey();
    const path: (string | number)[] = [];
    for (const [index, key] of keys.entries()) {
      path.push(key);
      const name = placeKey(path);
      const isLast = index === keys.length - 1;
      const length = this.#lengths.get(name) ?? 0;
      if (isList && isLast) {
        this.#note(path);
        this.#lengths.set(name, length + 1);
        path.push(length);
      } else if (length > 0) path.push(length - 1);
      this.#note(path);
    }
    return path;
  }

  #pair(table: KeyPath): void {
    const path = [...table];
    for (const key of this.#dottedKey()) {
      path.push(key);
      this.#note(path);
    }
    this.#skip();
    this.#eat("=");
    this.#skip();
    this.#value(path);
  }

  #value(path: KeyPath): void {
    if (this.#eat("[")) {
      for (let index = 0; !this.#isClosed("]"); index++) {
        this.#note([...path, index]);
        this.#value([...path, index]);
      }
    } else if (this.#eat("{")) {
      while (!this.#isClosed("}")) this.#pair(path);
    } else if (this.#quoted() === undefined) this.#match(/[^,\]}#\n]*/y);
  }

  /**
   * Skips to the next item of a list or an inline table; true if there is none, after passing the
   * closing character.
   */
  #isClosed(end: string): boolean {
    this.#skip();
    while (this.#eat(",")) this.#skip();
    return this.#eat(end) || this.#at >= this.#text.length;
  }

  #dottedKey(): string[] {
    const keys: string[] = [];
    do {
      this.#match(/[ \t]*/y);
      // An empty match means invalid TOML: skip the character, so the loop ends.
      const key = this.#quoted() ?? this.#match(/[A-Za-z0-9_-]+/y);
      if (key === "") this.#at += 1;
      keys.push(key);
      this.#match(/[ \t]*/y);
    } while (this.#eat("."));
    return keys;
  }

  /** Reads a string of any of TOML's four kinds; undefined if no string begins here. */
  #quoted(): string | undefined {
    for (const quote of ['"""', "'''", '"', "'"]) {
      if (!this.#text.startsWith(quote, this.#at)) continue;
      const from = this.#at + quote.length;
      let to = from;
      while (to < this.#text.length && !this.#text.startsWith(quote, to)) {
        to += quote.startsWith('"') && this.#text[to] === "\\" ? 2 : 1;
      }
      // In """a"""" the last of the quotes ends the string.
      while (quote.length === 3 && this.#text[to + 3] === quote[0]) to += 1;
      const content = this.#text.slice(from, to);
      this.#moveTo(to + quote.length);
      return quote === '"' ? unescaped(content) : content;
    }
    return undefined;
  }

  #note(path: KeyPath): void {
    const name = placeKey(path);
    if (!this.#lines.has(name)) this.#lines.set(name, this.#line);
  }

  #skip(): void {
    this.#match(/(?:\s|#[^\n]*)*/y);
  }

  #skipLine(): void {
    this.#match(/[^\n]*/y);
  }

  #eat(text: string): boolean {
    if (!this.#text.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0] ?? "";
    this.#moveTo(this.#at + found.length);
    return found;
  }

  #moveTo(at: number): void {
    for (let index = this.#at; index < at; index++) if (this.#text[index] === "\n") this.#line += 1;
    this.#at = at;
  }
}

function unescaped(content: string): string {
  try {
    return JSON.parse(`"${content}"`) as string;
  } catch {
    return content;
  }
}
