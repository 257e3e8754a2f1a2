import type { Http2Server, Http2Session, ServerHttp2Session } from "node:http2";
import type { Logger } from "../../../telemetry/log.ts";
import { TimerWheel, type WheelTimer } from "../../../time/timer-wheel.ts";
import type { Crowd } from "../crowd/crowd.ts";
import type { Http2Peer } from "../crowd/visit.ts";
import type { LastLine } from "./last-line.ts";

/**
 * A peer silent for this time, in milliseconds, is pinged. Devices send heartbeats more often and
 * are not pinged.
 */
const pingIntervalMsDefault = 30_000;
const pingTimeoutMsDefault = 10_000;
/** A ping is late by two ticks at most. */
const ticksPerInterval = 60;
/**
 * A session without any stream for this time, in milliseconds, is closed; its client opens another
 * when needed.
 */
const idleSessionTimeoutMs = 10 * 60_000;
/**
 * A proxy carries many devices on one connection and opens another connection beyond this number.
 */
const knownStreamsMax = 1_000;
/** A known connection with this number of streams may open more streams (`knownStreamsMax`). */
const streamsBeforeMore = 50;

/** The HTTP/2 sessions of the port. */
export type Sessions = {
  readonly size: number;
  all(): IterableIterator<ServerHttp2Session>;
  watchOf(session: Http2Session | undefined): Watch | undefined;
};

const destroy = (session: ServerHttp2Session) => session.destroy();

/** Keeps the HTTP/2 sessions, pings silent sessions, and ends dead or idle sessions. */
export function watchSessions(http2: Http2Server, options: SessionOptions): Sessions {
  const { lastLine, crowd, log } = options;
  const sessions = new Map<Http2Session, Watch>();
  const intervalMs = options.pingIntervalMs ?? pingIntervalMsDefault;
  const timeoutMs = options.pingTimeoutMs ?? pingTimeoutMsDefault;
  const rules = { intervalMs, timeoutMs, crowd, log, wheel: new TimerWheel(intervalMs / ticksPerInterval) };
  http2.on("session", (session) => {
    lastLine.guard(session, destroy);
    sessions.set(session, new Watch(session, rules));
    session.on("close", onClose);
  });
  function onClose(this: ServerHttp2Session): void {
    sessions.get(this)?.stop();
    sessions.delete(this);
  }
  return {
    get size() {
      return sessions.size;
    },
    all: () => sessions.keys() as IterableIterator<ServerHttp2Session>,
    watchOf: (session) => session && sessions.get(session),
  };
}

type SessionOptions = {
  pingIntervalMs?: number;
  pingTimeoutMs?: number;
  log: Logger;
  crowd?: Crowd | undefined;
  lastLine: LastLine;
};

/** What the watches of all sessions share. */
type Rules = {
  intervalMs: number;
  timeoutMs: number;
  crowd: Crowd | undefined;
  log: Logger;
  wheel: TimerWheel;
};

/**
 * A session under watch: one object in place of a closure for each step, because each idle device
 * has a session.
 *
 * - A suspect peer gets few streams. The library enforces the limit from here on, before the peer
 *   has heard of the limit; streams above the limit are refused, and may be tried again.
 * - A known connection with many streams may open more.
 * - After each interval without bytes from the peer the session is pinged, and destroyed without an
 *   answer.
 * - A session that had no stream for long is closed.
 */
export class Watch implements Http2Peer {
  readonly #session: ServerHttp2Session;
  readonly #rules: Rules;
  #timer: WheelTimer | undefined;
  #bytesRead = 0;
  #open = 0;
  #idleSince = performance.now();
  #mayHaveMore = false;
  #isLimited = false;

  constructor(session: ServerHttp2Session, rules: Rules) {
    this.#session = session;
    this.#rules = rules;
    this.#lookLater();
    const max = rules.crowd?.speaksHttp2(session.socket, this);
    if (max === undefined) return;
    this.#isLimited = true;
    this.#setMax(max);
  }

  /** The crowd closes the connection. */
  close(): void {
    this.#session.destroy();
  }

  /** A valid token has come over the connection. */
  known(): void {
    if (this.#isLimited) this.#setMax(knownStreamsMax);
  }

  #setMax(maxConcurrentStreams: number): void {
    const session = this.#session;
    if (!session.destroyed && !session.closed) session.settings({ maxConcurrentStreams });
  }

  begin(): void {
    this.#open++;
    if (this.#open === streamsBeforeMore && !this.#mayHaveMore) {
      this.#mayHaveMore = this.#rules.crowd?.isKnown(this.#session.socket) ?? true;
      if (this.#mayHaveMore) this.#session.settings({ maxConcurrentStreams: knownStreamsMax });
    }
  }

  end(): void {
    this.#open--;
    this.#idleSince = performance.now();
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #lookLater(): void {
    const { intervalMs, wheel } = this.#rules;
    // Randomized by up to +20 %, so that sessions opened together are not pinged together.
    this.#timer = wheel.after(intervalMs * (1 + Math.random() * 0.2), Watch.#lookAt, this);
  }

  static readonly #lookAt = (watch: Watch): void => watch.#look();

  #look(): void {
    const session = this.#session;
    if (session.destroyed) return;
    const hasRested = this.#open === 0 && performance.now() - this.#idleSince > idleSessionTimeoutMs;
    if (hasRested) session.close();
    if (session.destroyed) return;
    const before = this.#bytesRead;
    this.#bytesRead = session.socket.bytesRead;
    if (this.#bytesRead > before) this.#lookLater();
    else this.#ping();
  }

  #ping(): void {
    const session = this.#session;
    const { timeoutMs, wheel, log } = this.#rules;
    const timer = wheel.after(timeoutMs, () => {
      log.debug("a peer does not answer the ping; its session is destroyed");
      // A polite close would wait for the same peer.
      session.destroy();
    });
    this.#timer = timer;
    try {
      session.ping((error) => {
        timer.cancel();
        if (error || session.destroyed) return;
        // The answer itself is not the peer's own word.
        this.#bytesRead = session.socket.bytesRead;
        this.#lookLater();
      });
    } catch {
      // The session ended at the same moment.
      timer.cancel();
    }
  }
}
