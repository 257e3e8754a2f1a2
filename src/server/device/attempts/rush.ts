/**
 * A rush: more is due at one moment than one turn of the event loop sends. Messages of devices wait
 * for its end, because they arrive between the turns: with an accept and a completion handled for
 * each frame that has left, the last device of a rush would wait for the work of all others.
 *
 *   calm ──goesOn──▶ rush ──end, or msMax──▶ messages go on, a few in each turn ──▶ calm
 */

/** Maximum milliseconds that messages wait for a rush. */
const msMax = 100;
/** Waiting messages' streams that go on in one turn of the event loop. */
const streamsPerTurn = 16;

export class Rush {
  /** The start, by the monotonic clock; undefined outside of a rush. */
  #since: number | undefined;
  #waiting: (() => void)[] = [];
  #isLettingGo = false;

  /** Another turn follows for the same moment. */
  goesOn(): void {
    this.#since ??= performance.now();
    if (!this.#isOn) this.#letGo();
  }

  end(): void {
    this.#since = undefined;
    this.#letGo();
  }

  /** Undefined outside of a rush; otherwise resolves when messages go on. */
  calm(): Promise<void> | undefined {
    if (!this.#isOn) return undefined;
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  get #isOn(): boolean {
    return this.#since !== undefined && performance.now() - this.#since < msMax;
  }

  #letGo(): void {
    if (this.#isLettingGo || this.#waiting.length === 0) return;
    this.#isLettingGo = true;
    setImmediate(() => {
      this.#isLettingGo = false;
      // Another rush has begun, and its end lets them go.
      if (this.#isOn) return;
      for (const goOn of this.#waiting.splice(0, streamsPerTurn)) goOn();
      this.#letGo();
    });
  }
}
