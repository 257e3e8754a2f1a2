import type { Http2Server, ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import type { Logger } from "../../../log.ts";
import { TimerWheel, type WheelTimer } from "../../../timer-wheel.ts";
import type { Crowd } from "../crowd/crowd.ts";
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

/** Keeps the set of HTTP/2 sessions, pings silent sessions, and ends dead or idle sessions. */
export function watchSessions(http2: Http2Server, options: SessionOptions): Set<ServerHttp2Session> {
  const { lastLine, crowd, log } = options;
  const sessions = new Set<ServerHttp2Session>();
  const intervalMs = options.pingIntervalMs ?? pingIntervalMsDefault;
  const timeoutMs = options.pingTimeoutMs ?? pingTimeoutMsDefault;
  const rules = { intervalMs, timeoutMs, crowd, log, wheel: new TimerWheel(intervalMs / ticksPerInterval) };
  http2.on("session", (session) => {
    lastLine.guard(session, () => session.destroy());
    limitStreams(session, crowd);
    sessions.add(session);
    const watch = new Watch(session, rules);
    session.on("stream", (stream) => watch.begin(stream));
    session.on("close", () => {
      watch.stop();
      sessions.delete(session);
    });
  });
  return sessions;
}

type SessionOptions = {
  pingIntervalMs?: number;
  pingTimeoutMs?: number;
  log: Logger;
  crowd?: Crowd | undefined;
  lastLine: LastLine;
};

/**
 * Gives a session of a suspect peer few streams. The library enforces the limit from here on, before
 * the peer has heard of the limit; streams above it are refused, and may be tried again.
 */
function limitStreams(session: ServerHttp2Session, crowd: Crowd | undefined): void {
  const setMax = (maxConcurrentStreams: number) => {
    if (!session.destroyed && !session.closed) session.settings({ maxConcurrentStreams });
  };
  let isLimited = false;
  const max = crowd?.speaksHttp2(session.socket, {
    close: () => session.destroy(),
    known: () => isLimited && setMax(knownStreamsMax),
  });
  if (max === undefined) return;
  isLimited = true;
  setMax(max);
}

/** What the watches of all sessions share. */
type Rules = {
  intervalMs: number;
  timeoutMs: number;
  crowd: Crowd | undefined;
  log: Logger;
  wheel: TimerWheel;
};

/**
 * A session under watch: one object in place of a closure for each step, because each idle device has a
 * session.
 *
 * - A known connection with many streams may open more.
 * - After each interval without bytes from the peer the session is pinged, and destroyed without an
 *   answer.
 * - A session that had no stream for long is closed.
 */
class Watch {
  readonly #session: ServerHttp2Session;
  readonly #rules: Rules;
  #timer: WheelTimer | undefined;
  #bytesRead = 0;
  #open = 0;
  #idleSince = performance.now();
  #mayHaveMore = false;

  constructor(session: ServerHttp2Session, rules: Rules) {
    this.#session = session;
    this.#rules = rules;
    this.#lookLater();
  }

  begin(stream: ServerHttp2Stream): void {
    this.#open++;
    if (this.#open === streamsBeforeMore && !this.#mayHaveMore) {
      this.#mayHaveMore = this.#rules.crowd?.isKnown(this.#session.socket) ?? true;
      if (this.#mayHaveMore) this.#session.settings({ maxConcurrentStreams: knownStreamsMax });
    }
    stream.on("close", () => {
      this.#open--;
      this.#idleSince = performance.now();
    });
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #lookLater(): void {
    const { intervalMs, wheel } = this.#rules;
    // Randomized by up to +20 %, so that sessions opened together are not pinged together.
    this.#timer = wheel.after(intervalMs * (1 + Math.random() * 0.2), () => this.#look());
  }

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
