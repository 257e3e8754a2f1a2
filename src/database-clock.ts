/**
 * The database's clock as this process estimates it. Every statement that answers with the clock bounds its offset to the
 * monotonic clock from both sides: when the answer arrives the database's clock is past what it says, and when the question
 * left it was not there yet. The estimate takes the tightest lower bound of the last samples, so it is late by what the quickest
 * answer took on its way, and never early by more than the two clocks drift apart meanwhile.
 */
export type ClockSample = {
  /** By the monotonic clock, in milliseconds: when the statement was sent, and when its answer was there. */
  sentAt: number;
  receivedAt: number;
  /** What it said, in milliseconds since 1970. */
  databaseMs: number;
};

/** Two clocks that NTP keeps run apart by less; RFC 5905 takes 15 ppm for the bound of a usual one. */
const driftPerMs = 50e-6;
/** Bounds that miss each other by more are of a clock that was set. */
const jumpMs = 5;

export class DatabaseClock {
  #lower = Number.NEGATIVE_INFINITY;
  #upper = Number.POSITIVE_INFINITY;
  #at = 0;
  readonly #listeners = new Set<(jumpedByMs: number) => void>();
  #doubts: (databaseMs: number) => boolean = () => false;

  /** Whether anything is known. */
  get isKnown(): boolean {
    return this.#lower !== Number.NEGATIVE_INFINITY;
  }

  /** How long ago, in milliseconds, a statement last told the time. */
  get ageMs(): number {
    return performance.now() - this.#at;
  }

  /** Milliseconds since 1970 that the database's clock has reached; before any sample, by this machine's clock. */
  now(): number {
    if (!this.isKnown) return Date.now();
    const now = performance.now();
    return now + this.#lower - driftPerMs * Math.max(0, now - this.#at);
  }

  /** From now on a jump to a time that the judge doubts is not taken: the estimate goes on without the jump. */
  doubt(doubts: (databaseMs: number) => boolean): void {
    this.#doubts = doubts;
  }

  /** Takes what a statement told. A clock that was set is believed at once unless the time is doubted, and the listeners are told by how much it moved. */
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

  /** Runs a statement that answers with the clock, and takes its sample. */
  async read<T>(statement: () => Promise<T>, databaseMs: (answer: T) => number): Promise<T> {
    const sentAt = performance.now();
    const answer = await statement();
    this.sample({ sentAt, receivedAt: performance.now(), databaseMs: databaseMs(answer) });
    return answer;
  }

  /** Calls back when the database's clock was set; answers how to stop. */
  onJump(listener: (jumpedByMs: number) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
