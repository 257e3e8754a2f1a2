/** Maximum milliseconds that messages wait for a rush. */
const rushMsMax = 100;
/**
 * Milliseconds of devices' messages in one turn of the event loop: whatever else the replica serves
 * waits no longer for them, and a request waits for several turns.
 */
const messagesMsPerTurn = 4;

/** A stream with messages that wait. */
export type Held = {
  /** Handles the messages; called once for each hold. Does not throw. */
  goOn(): void;
};

/**
 * The pace of devices' messages: in one turn of the event loop they take a few milliseconds, and
 * the streams beyond that go on in later turns, in their order. During a rush, when more is due at
 * one moment than one turn sends, all messages wait, because they arrive between the turns: with an
 * accept and a completion handled for each frame that has left, the last device of a rush would
 * wait for the work of all others.
 *
 *   calm ──goesOn──▶ rush ──end, or rushMsMax──▶ messages go on, some ms in each turn ──▶ calm
 *     └──a turn's milliseconds are used up──────────▲
 */
export class Rush {
  /** The start of the rush, by the monotonic clock; undefined outside of a rush. */
  #since: number | undefined;
  /** The turn's first message, by the monotonic clock. */
  #turnSince: number | undefined;
  #waiting: Held[] = [];
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

  /** False: the stream's messages may be handled now. True: the stream goes on in a later turn. */
  holds(stream: Held): boolean {
    if (!this.#isOn && this.#waiting.length === 0 && !this.#isTurnUsedUp()) return false;
    this.#hold(stream);
    return true;
  }

  /**
   * As {@link holds}, between two messages of one stream: true only if the turn's time is used up.
   */
  interrupts(stream: Held): boolean {
    if (!this.#isTurnUsedUp()) return false;
    this.#hold(stream);
    return true;
  }

  #hold(stream: Held): void {
    this.#waiting.push(stream);
    if (!this.#isOn) this.#letGo();
  }

  get #isOn(): boolean {
    return this.#since !== undefined && performance.now() - this.#since < rushMsMax;
  }

  #isTurnUsedUp(): boolean {
    const now = performance.now();
    if (this.#turnSince !== undefined) return now - this.#turnSince > messagesMsPerTurn;
    this.#turnSince = now;
    setImmediate(this.#nextTurn);
    return false;
  }

  readonly #nextTurn = () => {
    this.#turnSince = undefined;
  };

  #letGo(): void {
    if (this.#isLettingGo || this.#waiting.length === 0) return;
    this.#isLettingGo = true;
    setImmediate(() => {
      this.#isLettingGo = false;
      // Another rush has begun, and its end lets them go.
      if (this.#isOn) return;
      this.#turnSince = undefined;
      // Held once more, a stream stands behind the others.
      const waiting = this.#waiting;
      this.#waiting = [];
      let gone = 0;
      while (gone < waiting.length && !this.#isTurnUsedUp()) waiting[gone++]?.goOn();
      this.#waiting = [...waiting.slice(gone), ...this.#waiting];
      this.#letGo();
    });
  }
}
