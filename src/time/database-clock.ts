/**
 * The process's estimate of the database's clock. A statement that returns the database's time
 * bounds the offset between the database's clock and the monotonic clock from both sides: the
 * database's clock had not reached the returned time when the statement was sent, and has passed
 * the returned time when the answer arrives. The estimate is the tightest lower bound of the last
 * samples. So the estimate is late by the travel time of the quickest answer, and early by no more
 * than the drift between the two clocks since the sample.
 */
export type ClockSample = {
  /**
   * Milliseconds by the monotonic clock: when the statement was sent, and when its answer arrived.
   */
  sentAt: number;
  receivedAt: number;
  /** The database's time in the answer, in milliseconds since 1970. */
  databaseMs: number;
};

/** Above the drift between two clocks under NTP. RFC 5905 assumes at most 15 ppm for one clock. */
const driftPerMs = 50e-6;
/** A larger gap between two bounds means that the clock was set. */
const jumpMs = 5;

export class DatabaseClock {
  #lower = Number.NEGATIVE_INFINITY;
  #upper = Number.POSITIVE_INFINITY;
  #at = 0;
  readonly #listeners = new Set<(jumpedByMs: number) => void>();
  #doubts: (databaseMs: number) => boolean = () => false;

  /** Whether a sample has been taken. */
  get isKnown(): boolean {
    return this.#lower !== Number.NEGATIVE_INFINITY;
  }

  /** Milliseconds since the last sample. */
  get ageMs(): number {
    return performance.now() - this.#at;
  }

  /**
   * The time that the database's clock has reached, in milliseconds since 1970; before the first
   * sample, the time of this machine's clock.
   */
  now(): number {
    if (!this.isKnown) return Date.now();
    const now = performance.now();
    return now + this.#lower - driftPerMs * Math.max(0, now - this.#at);
  }

  /** Sets the judge of jumps. The estimate ignores a jump to a time that the judge doubts. */
  doubt(doubts: (databaseMs: number) => boolean): void {
    this.#doubts = doubts;
  }

  /**
   * Takes a sample. The estimate follows a clock that was set at once, unless the judge doubts the
   * new time; the listeners hear by how many milliseconds the clock jumped.
   */
  sample({ sentAt, receivedAt, databaseMs }: ClockSample): void {
    const [lower, upper] = [databaseMs - receivedAt, databaseMs - sentAt];
    const aged = driftPerMs * Math.max(0, receivedAt - this.#at);
    const [knownLower, knownUpper] = [this.#lower - aged, this.#upper + aged];
    const isJump = lower > knownUpper + jumpMs || upper < knownLower - jumpMs;
    if ((isJump || !this.isKnown) && this.#doubts(databaseMs)) {
      if (this.isKnown) [this.#lower, this.#upper, this.#at] = [knownLower, knownUpper, receivedAt];
      return;
    }
    this.#at = receivedAt;
    if (this.isKnown && isJump) {
      const jumpedByMs = lower > knownUpper ? lower - knownUpper : upper - knownLower;
      this.#lower = lower;
      this.#upper = upper;
      for (const listener of this.#listeners) listener(jumpedByMs);
      return;
    }
    this.#lower = Math.max(knownLower, lower);
    this.#upper = Math.max(this.#lower, Math.min(knownUpper, upper));
  }

  /** Runs a statement that returns the database's time, and takes the sample. */
  async read<T>(statement: () => Promise<T>, databaseMs: (answer: T) => number): Promise<T> {
    const sentAt = performance.now();
    const answer = await statement();
    this.sample({ sentAt, receivedAt: performance.now(), databaseMs: databaseMs(answer) });
    return answer;
  }

  /** Calls back when the database's clock was set. Returns a function that ends the calls. */
  onJump(listener: (jumpedByMs: number) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
