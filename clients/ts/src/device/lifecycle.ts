/**
 * State table of a device connection. A cell names the next state; `null` drops an event which came
 * too late for the state. The compiler requires every cell.
 *
 *   idle      start: the state directory is being locked and recovered
 *   dialing   a new channel connects (owns the dial deadline)
 *   greeting  hello is sent, welcome is awaited (owns the welcome deadline)
 *   serving   the session is open (owns heartbeat and watchdog)
 *   draining  the server asked the device to leave; acknowledgements are still read
 *             (owns the linger deadline)
 *   waiting   no stream; the next dial is scheduled (owns the backoff timer)
 *   closed    the end
 *
 *   idle ──▶ dialing ──▶ greeting ──▶ serving ──▶ draining
 *              ▲  │          │            │           │
 *            due  └──────────┴── ended ───┴───────────┘
 *              │                   ▼
 *              └─────────────── waiting        failed, stopped: any state ──▶ closed
 *
 * A `drain` during the greeting also leads to draining. A state owns its timers (`after`,
 * `every`): leaving the state clears them, so no timer fires in a later state.
 */
export type ConnectionState = "idle" | "dialing" | "greeting" | "serving" | "draining" | "waiting" | "closed";

export type ConnectionEvent =
  /** The state directory is locked and recovered. */
  | "started"
  /** The channel is connected. */
  | "connected"
  /** `welcome` arrived. */
  | "welcomed"
  /** `drain` arrived. */
  | "drained"
  /** The stream is over, for any reason; the device will dial again. */
  | "ended"
  /** The delay before the next dial is over, or the machine woke up. */
  | "due"
  /** A final error. */
  | "failed"
  /** The caller closes the connection. */
  | "stopped";

export const transitions: Record<ConnectionState, Record<ConnectionEvent, ConnectionState | null>> = {
  idle: {
    started: "dialing",
    connected: null,
    welcomed: null,
    drained: null,
    ended: null,
    due: null,
    failed: "closed",
    stopped: "closed",
  },
  dialing: {
    started: null,
    connected: "greeting",
    welcomed: null,
    drained: null,
    ended: "waiting",
    due: null,
    failed: "closed",
    stopped: "closed",
  },
  greeting: {
    started: null,
    connected: null,
    welcomed: "serving",
    drained: "draining",
    ended: "waiting",
    due: null,
    failed: "closed",
    stopped: "closed",
  },
  serving: {
    started: null,
    connected: null,
    welcomed: null,
    drained: "draining",
    ended: "waiting",
    due: null,
    failed: "closed",
    stopped: "closed",
  },
  draining: {
    started: null,
    connected: null,
    welcomed: null,
    drained: null,
    ended: "waiting",
    due: null,
    failed: "closed",
    stopped: "closed",
  },
  waiting: {
    started: null,
    connected: null,
    welcomed: null,
    drained: null,
    ended: null,
    due: "dialing",
    failed: "closed",
    stopped: "closed",
  },
  closed: {
    started: null,
    connected: null,
    welcomed: null,
    drained: null,
    ended: null,
    due: null,
    failed: null,
    stopped: null,
  },
};

/**
 * Maximum delay of a timer in ms (24.8 days). Node fires longer timers at once: its delays are
 * 32-bit.
 */
export const TIMER_MS_MAX = 2 ** 31 - 1;

/** The current state, its timers, and the only function for changing the state. */
export class Lifecycle {
  #state: ConnectionState = "idle";
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #onChange: (state: ConnectionState, from: ConnectionState, event: ConnectionEvent) => void;

  constructor(onChange: (state: ConnectionState, from: ConnectionState, event: ConnectionEvent) => void) {
    this.#onChange = onChange;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Changes the state by the table. False if the event came too late and was dropped. */
  fire(event: ConnectionEvent): boolean {
    const from = this.#state;
    const to = transitions[from][event];
    if (to === null) return false;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#state = to;
    this.#onChange(to, from, event);
    return true;
  }

  /** Calls once after `ms`, unless the state changes before. */
  after(ms: number, call: () => void): void {
    const timer = setTimeout(
      () => {
        this.#timers.delete(timer);
        call();
      },
      Math.min(ms, TIMER_MS_MAX),
    );
    this.#timers.add(timer);
  }

  /** Calls every `ms` until the state changes. */
  every(ms: number, call: () => void): void {
    this.#timers.add(setInterval(call, ms));
  }
}
