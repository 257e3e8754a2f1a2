/** What stands in the place of a secret; as bytes, so that text that was cut in the middle stays as it is. */
const MARK = Buffer.from("[hidden by pinion]");
/** A secret that is shorter would be found in what is none. */
const SECRET_CHARACTERS_MIN = 16;

/**
 * The parts of a device's token that must not leave: the random one, by which a program that prints the token in pieces, or
 * without its beginning, is found as well; the whole where it has no such part.
 */
export function secretsOf(token: string): string[] {
  const random = /^pin_[a-z]+_([0-9A-Za-z]+)_/.exec(token)?.[1] ?? token;
  const found = [random, Buffer.from(token).toString("base64").replace(/=+$/, "")];
  return found.filter((secret) => secret.length >= SECRET_CHARACTERS_MIN);
}

/**
 * Takes secrets out of a stream, also where one comes in pieces: what could be the beginning of a secret waits for what
 * follows, which is less than a secret's length.
 */
export class Redaction {
  readonly #secrets: Buffer[];
  #held: Buffer = Buffer.alloc(0);
  /** Secrets that were taken out. */
  count = 0;

  constructor(secrets: readonly string[]) {
    this.#secrets = secrets.filter((secret) => secret !== "").map((secret) => Buffer.from(secret));
  }

  /** What may leave now. */
  add(data: Buffer): Buffer {
    if (this.#secrets.length === 0) return data;
    const all = this.#held.length === 0 ? data : Buffer.concat([this.#held, data]);
    const clean = this.#replace(all);
    const keep = this.#beginning(clean);
    // A copy: a slice would keep the whole of a large read alive.
    this.#held = Buffer.from(clean.subarray(clean.length - keep));
    return clean.subarray(0, clean.length - keep);
  }

  /** What was held back, once nothing follows. */
  end(): Buffer {
    const rest = this.#held;
    this.#held = Buffer.alloc(0);
    return rest;
  }

  /** A whole text or file at once. */
  static whole(data: Buffer, secrets: readonly string[]): Buffer {
    const redaction = new Redaction(secrets);
    return Buffer.concat([redaction.add(data), redaction.end()]);
  }

  #replace(data: Buffer): Buffer {
    let clean = data;
    for (const secret of this.#secrets) {
      let at = clean.indexOf(secret);
      if (at < 0) continue;
      const parts: Buffer[] = [];
      let from = 0;
      while (at >= 0) {
        this.count += 1;
        parts.push(clean.subarray(from, at), MARK);
        from = at + secret.length;
        at = clean.indexOf(secret, from);
      }
      clean = Buffer.concat([...parts, clean.subarray(from)]);
    }
    return clean;
  }

  /** How many of the last bytes could be the beginning of a secret. */
  #beginning(data: Buffer): number {
    let longest = 0;
    for (const secret of this.#secrets) {
      for (let length = Math.min(secret.length - 1, data.length); length > longest; length--) {
        if (data.subarray(data.length - length).equals(secret.subarray(0, length))) longest = length;
      }
    }
    return longest;
  }
}
