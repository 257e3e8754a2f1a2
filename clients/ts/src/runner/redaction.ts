/** Replacement of a secret; in bytes, so text split between pieces is not changed. */
const MARK = Buffer.from("[hidden by pinion]");
/** Minimum length: shorter secrets would match ordinary text. */
const SECRET_CHARACTERS_MIN = 16;

/**
 * The secret parts of a device's token: the random part, also found in a token printed in pieces or
 * without its beginning, or the whole token if it has no random part; and the token in base64.
 */
export function secretsOf(token: string): string[] {
  const random = /^pin_[a-z]+_(?:[a-z][a-z0-9]*_)?([0-9A-Za-z]{30})_/.exec(token)?.[1] ?? token;
  const found = [random, Buffer.from(token).toString("base64").replace(/=+$/, "")];
  return found.filter((secret) => secret.length >= SECRET_CHARACTERS_MIN);
}

/**
 * Removes secrets from a stream, also those split between pieces: a possible beginning of a secret
 * is held until the next bytes. The held bytes are fewer than a secret's length.
 */
export class Redaction {
  readonly #secrets: Buffer[];
  #held: Buffer = Buffer.alloc(0);
  /** Number of removed secrets. */
  count = 0;

  constructor(secrets: readonly string[]) {
    this.#secrets = secrets.filter((secret) => secret !== "").map((secret) => Buffer.from(secret));
  }

  /** Returns the bytes free to leave now. */
  add(data: Buffer): Buffer {
    if (this.#secrets.length === 0) return data;
    const all = this.#held.length === 0 ? data : Buffer.concat([this.#held, data]);
    const clean = this.#replace(all);
    const keep = this.#beginning(clean);
    // A copy: a slice would keep the whole read buffer in memory.
    this.#held = Buffer.from(clean.subarray(clean.length - keep));
    return clean.subarray(0, clean.length - keep);
  }

  /** Returns the held bytes at the end of the stream. */
  end(): Buffer {
    const rest = this.#held;
    this.#held = Buffer.alloc(0);
    return rest;
  }

  /** Removes secrets from a whole text or file. */
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

  /** Number of last bytes possibly at the beginning of a secret. */
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
