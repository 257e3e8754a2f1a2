/**
 * The latest lines of a daemon's log, in memory, for people who ask from elsewhere
 * (`pinion devices log`). Programs' output is not in it, and secrets of Pinion are struck out.
 */

const linesMax = 500;
const lineCharactersMax = 1_000;
/** The bound of LogExcerpt.text. */
const excerptBytesMax = 32 * 1024;
const secretPattern = /pin_(pat|dev|svc)_[A-Za-z0-9_]+/g;

export class LogRing {
  readonly #lines: string[] = [];
  readonly #secrets: readonly string[];
  #isCut = false;

  /** `secrets`: further texts that never leave the machine. */
  constructor(secrets: readonly string[]) {
    this.#secrets = secrets.filter((secret) => secret.length >= 8);
  }

  push(atMs: number, line: string): void {
    let clean = line.replace(secretPattern, "pin_$1_…");
    for (const secret of this.#secrets) clean = clean.replaceAll(secret, "…");
    this.#lines.push(`${new Date(atMs).toISOString()}  ${clean.slice(0, lineCharactersMax)}`);
    if (this.#lines.length <= linesMax) return;
    this.#lines.shift();
    this.#isCut = true;
  }

  /** The latest lines, as many as are wanted and fit. */
  excerpt(wanted: number): { text: string; isTruncated: boolean } {
    const chosen: string[] = [];
    let bytes = 0;
    for (const line of this.#lines.toReversed()) {
      bytes += Buffer.byteLength(line) + 1;
      if (chosen.length >= wanted || bytes > excerptBytesMax) break;
      chosen.unshift(line);
    }
    return { text: chosen.join("\n"), isTruncated: this.#isCut || chosen.length < this.#lines.length };
  }
}
