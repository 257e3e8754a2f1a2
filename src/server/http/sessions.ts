import type { Http2Server, ServerHttp2Session } from "node:http2";
import type { Logger } from "../../log.ts";
import { TimerWheel, type WheelTimer } from "../../timer-wheel.ts";
import type { Crowd } from "./crowd.ts";
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
  const { lastLine, crowd } = options;
  const sessions = new Set<ServerHttp2Session>();
  const wheel = new TimerWheel((options.pingIntervalMs ?? pingIntervalMsDefault) / ticksPerInterval);
  http2.on("session", (session) => {
    lastLine.guard(session, () => session.destroy());
    limitStreams(session, crowd);
    sessions.add(session);
    const streams = countStreams(session, crowd);
    const stop = pingSilent(session, streams, { ...options, wheel });
    session.on("close", () => {
      stop();
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

type StreamCount = { open: number; idleSince: number };

/** Counts the streams of a session; a known connection with many streams may open more. */
function countStreams(session: ServerHttp2Session, crowd: Crowd | undefined): Readonly<StreamCount> {
  const count: StreamCount = { open: 0, idleSince: performance.now() };
  let mayHaveMore = false;
  session.on("stream", (stream) => {
    count.open++;
    if (count.open === streamsBeforeMore && !mayHaveMore) {
      mayHaveMore = crowd?.isKnown(session.socket) ?? true;
      if (mayHaveMore) session.settings({ maxConcurrentStreams: knownStreamsMax });
    }
    stream.on("close", () => {
      count.open--;
      count.idleSince = performance.now();
    });
  });
  return count;
}

/**
 * Pings the session after each interval without bytes from the peer, destroys the session without
 * an answer, and closes a session that had no stream for long. Returns a function that stops.
 */
function pingSilent(
  session: ServerHttp2Session,
  streams: Readonly<StreamCount>,
  options: SessionOptions & { wheel: TimerWheel },
): () => void {
  const intervalMs = options.pingIntervalMs ?? pingIntervalMsDefault;
  const timeoutMs = options.pingTimeoutMs ?? pingTimeoutMsDefault;
  const { wheel } = options;
  let timer: WheelTimer;
  let bytesRead = 0;
  const lookLater = () => {
    // Randomized by up to +20 %, so that sessions opened together are not pinged together.
    timer = wheel.after(intervalMs * (1 + Math.random() * 0.2), look);
  };
  const look = () => {
    if (session.destroyed) return;
    if (streams.open === 0 && performance.now() - streams.idleSince > idleSessionTimeoutMs) session.close();
    if (session.destroyed) return;
    const before = bytesRead;
    bytesRead = session.socket.bytesRead;
    if (bytesRead > before) lookLater();
    else ping();
  };
  const ping = () => {
    timer = wheel.after(timeoutMs, () => {
      options.log.debug("a peer does not answer the ping; its session is destroyed");
      // A polite close would wait for the same peer.
      session.destroy();
    });
    try {
      session.ping((error) => {
        timer.cancel();
        if (error || session.destroyed) return;
        // The answer itself is not the peer's own word.
        bytesRead = session.socket.bytesRead;
        lookLater();
      });
    } catch {
      // The session ended at the same moment.
      timer.cancel();
    }
  };
  lookLater();
  return () => timer.cancel();
}
