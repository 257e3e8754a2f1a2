import { TIMER_MS_MAX } from "../device/lifecycle.ts";

/** An attempt's time limit. The clock stops while a question is open, up to `pauseMaxMs` in all. */
export class TimeLimit {
  readonly #onExpired: () => void;
  readonly #limitMs: number;
  #leftMs: number;
  #pauseLeftMs: number;
  #runningSince: number | undefined;
  #pausedSince: number | undefined;
  #pauses = 0;
  #timer: NodeJS.Timeout | undefined;

  /** `limitMs` undefined: no limit. `pauseMaxMs`: bound on the sum of the pauses, in ms. */
  constructor(options: { limitMs: number | undefined; pauseMaxMs: number; onExpired: () => void }) {
    this.#limitMs = options.limitMs ?? Number.POSITIVE_INFINITY;
    this.#leftMs = this.#limitMs;
    this.#pauseLeftMs = options.pauseMaxMs;
    this.#onExpired = options.onExpired;
    this.#run();
  }

  /** Pauses the limit until the returned function is called; several pauses may overlap. */
  pause(): () => void {
    this.#pauses += 1;
    if (this.#pauses === 1) this.#standStill();
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#pauses -= 1;
      if (this.#pauses === 0 && this.#pausedSince !== undefined) this.#run();
    };
  }

  /** Starts the full limit again, unless paused. */
  restart(): void {
    this.#leftMs = this.#limitMs;
    // A busy program restarts the limit a thousand times a second, so the timer is only moved at
    // expiry.
    if (this.#pausedSince === undefined) this.#runningSince = performance.now();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#leftMs = Number.POSITIVE_INFINITY;
  }

  #run(): void {
    clearTimeout(this.#timer);
    const now = performance.now();
    if (this.#pausedSince !== undefined) this.#pauseLeftMs -= now - this.#pausedSince;
    this.#pausedSince = undefined;
    this.#runningSince = now;
    if (!Number.isFinite(this.#leftMs)) return;
    this.#arm(this.#leftMs);
  }

  #arm(ms: number): void {
    this.#timer = setTimeout(
      () => {
        const ranMs = performance.now() - (this.#runningSince ?? 0);
        if (ranMs >= this.#leftMs - 1) this.#onExpired();
        else this.#arm(this.#leftMs - ranMs);
      },
      Math.min(TIMER_MS_MAX, Math.max(0, ms)),
    );
  }

  #standStill(): void {
    if (this.#pauseLeftMs <= 0) return;
    clearTimeout(this.#timer);
    const now = performance.now();
    if (this.#runningSince !== undefined) this.#leftMs -= now - this.#runningSince;
    this.#runningSince = undefined;
    this.#pausedSince = now;
    this.#timer = setTimeout(
      () => {
        this.#run();
      },
      Math.min(TIMER_MS_MAX, this.#pauseLeftMs),
    );
    if (!Number.isFinite(this.#leftMs)) clearTimeout(this.#timer);
  }
}
