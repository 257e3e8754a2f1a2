import { tailLines } from "./log-tail.ts";

/** An event of the daemon in its log; see eventRecord in lines.ts. */
export type LoggedEvent = {
  type: string;
  at_ms: number;
  work_id?: string;
  watcher?: string;
  executor?: string;
  pid?: number;
  fired_at_ms?: number;
  store_ms?: number;
  verdict?: string;
  message?: string;
  reason?: string;
  device_id?: string;
  /** For a `finished` event: the outcome of the program. */
  result?: { outcome?: string; reason?: string };
  /** For a `configured` event: the problem of the file; empty: none. */
  problem?: string;
  /** For a `fatal` event: the final error. */
  error?: string;
};

/** Reads the daemon's growing log and passes its events to listeners. */
export class DeviceLog {
  readonly #listeners = new Set<(event: LoggedEvent) => void>();
  readonly #reading: Promise<void>;

  constructor(path: string, options: { fromByte: number; signal: AbortSignal }) {
    this.#reading = this.#read(path, options);
  }

  /** Calls the listener for each new event; returns a function for removing the listener. */
  onEvent(listener: (event: LoggedEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The first event with `isIt` true, or undefined after `ms` or an abort. */
  async next(
    isIt: (event: LoggedEvent) => boolean,
    ms: number,
    signal: AbortSignal,
  ): Promise<LoggedEvent | undefined> {
    const found = Promise.withResolvers<LoggedEvent | undefined>();
    const giveUp = () => found.resolve(undefined);
    const stop = this.onEvent((event) => {
      if (isIt(event)) found.resolve(event);
    });
    const timer = setTimeout(giveUp, ms);
    signal.addEventListener("abort", giveUp, { once: true });
    if (signal.aborted) giveUp();
    try {
      return await found.promise;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", giveUp);
      stop();
    }
  }

  /** Resolves after the last read, following the signal. */
  async closed(): Promise<void> {
    await this.#reading;
  }

  async #read(path: string, options: { fromByte: number; signal: AbortSignal }): Promise<void> {
    for await (const line of tailLines(path, options)) {
      const event = parseEvent(line);
      if (event) for (const listener of [...this.#listeners]) listener(event);
    }
  }
}

/** The event on a line; undefined for a line of the daemon's logger. */
export function parseEvent(line: string): LoggedEvent | undefined {
  try {
    const value = JSON.parse(line) as Partial<LoggedEvent> | null;
    return typeof value?.type === "string" && typeof value.at_ms === "number"
      ? (value as LoggedEvent)
      : undefined;
  } catch {
    return undefined;
  }
}
