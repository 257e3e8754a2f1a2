/**
 * The server's port. The first bytes of a connection tell its protocol: HTTP/1.1, HTTP/2 without
 * TLS, or TLS with either of the two inside. `httpolyglot` reads them.
 *
 * - Dead peers are detected: HTTP/2 sessions are pinged, and a session without an answer is
 *   destroyed. (TCP would keep the session for many minutes, and Node does not ping by itself.)
 * - A peer that sends nothing, or sends its headers too slowly, is cut after a stated time.
 * - A request with a malformed authority reaches no handler (authority.ts). A handler that fails,
 *   now or in a later callback, ends its own request and no other (last-line.ts).
 * - With TLS configured nothing is served without TLS, so no token and no client certificate is
 *   bypassed by accident.
 * - Closing has three steps: accept no new connection (`drain`), let requests end (`close`), cut
 *   the rest after the grace.
 */
import type { EventEmitter } from "node:events";
import type { Server as Http1Server, IncomingMessage, ServerResponse } from "node:http";
import {
  constants,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { type AddressInfo, type Server as NetServer, Socket } from "node:net";
import type { TLSSocket, TlsOptions, Server as TlsServer } from "node:tls";
import { createServer } from "@httptoolkit/httpolyglot";
import { within } from "../../abort.ts";
import { networkOf } from "../../buckets.ts";
import { Refusal } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { http1Problem, http2Problem } from "./authority.ts";
import type { Crowd, Visit } from "./crowd.ts";
import { createLastLine, type LastLine } from "./last-line.ts";
import { createTurns } from "./turns.ts";

/** Serves a request. An error or a rejection ends the request (last-line.ts). */
export type Handler = (
  request: IncomingMessage | Http2ServerRequest,
  response: ServerResponse | Http2ServerResponse,
) => void | Promise<void>;

export type PortOptions = {
  host: string;
  /** 0 lets the system choose. */
  port: number;
  /** Certificates (PEM), and with `requestCert` whether clients show theirs. */
  tls?: Pick<TlsOptions, "cert" | "key" | "ca" | "requestCert" | "rejectUnauthorized"> | undefined;
  handler: Handler;
  /**
   * Sees each HTTP/2 stream before the handler. Undefined leaves the stream to the handler;
   * otherwise the callee serves the stream until the promise settles, and a rejection cuts the
   * stream.
   */
  takeStream?: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => Promise<void> | undefined;
  log: Logger;
  lastLine?: LastLine;
  /** Limits on strangers; without them only the number of connections is limited. */
  crowd?: Crowd;
  pingIntervalMs?: number;
  pingTimeoutMs?: number;
  /**
   * Maximum time from a connection's start to the bytes that tell its protocol, in milliseconds.
   */
  firstBytesTimeoutMs?: number;
  /** Maximum milliseconds for a request's headers on HTTP/1.1. */
  headersTimeoutMs?: number;
  connectionsMax?: number;
};

export type Port = {
  port: number;
  /** A URL that reaches the port from the local machine. */
  url: string;
  stats(): { connections: number; sessions: number };
  /** Accepts no new connection. Existing connections stay and may make further requests. */
  drain(): void;
  /**
   * Also accepts no new request; resolves when all requests have ended, and cuts the rest after
   * `graceMs`. Idempotent.
   */
  close(graceMs: number): Promise<void>;
};

/**
 * A peer silent for this time, in milliseconds, is pinged. Devices send heartbeats more often and
 * are not pinged.
 */
const pingIntervalMsDefault = 30_000;
const pingTimeoutMsDefault = 10_000;
const firstBytesTimeoutMsDefault = 10_000;
const headersTimeoutMsDefault = 10_000;
/** 20,000 devices with a connection each, their reconnects, and all other clients. */
const connectionsMaxDefault = 25_000;
/**
 * Above 60 s, the idle timeout of common load balancers, so that the load balancer closes first and
 * no request is lost.
 */
const keepAliveTimeoutMs = 75_000;
const requestTimeoutMs = 60_000;
const headerBytesMax = 16 * 1024;
/**
 * A session without any stream for this time, in milliseconds, is closed; its client opens another
 * when needed.
 */
const idleSessionTimeoutMs = 10 * 60_000;
const closePollMs = 50;

/**
 * A browser has some ten streams. One read of a connection may open up to this number in one turn
 * of the event loop.
 */
const strangerStreamsMax = 100;
/**
 * A proxy carries many devices on one connection and opens another connection beyond this number.
 */
const knownStreamsMax = 1_000;
/** A known connection with this number of streams may open more streams (`knownStreamsMax`). */
const streamsBeforeMore = 50;

/** New connections handed on per turn of the event loop. */
const connectionsPerTurn = 4;

/** HSTS: a browser that has visited the server uses TLS from then on, also for http:// links. */
const strictTransport = ["strict-transport-security", "max-age=31536000"] as const;

const http1Options = {
  maxHeaderSize: headerBytesMax,
  requestTimeout: requestTimeoutMs,
  keepAliveTimeout: keepAliveTimeoutMs,
};

const http2Options = {
  settings: {
    enablePush: false,
    // The initial limit; a known connection may have more (`knownStreamsMax`).
    maxConcurrentStreams: strangerStreamsMax,
    maxHeaderListSize: headerBytesMax,
    // A completion of some hundred KiB needs no round trip for permission; reading slowly still
    // holds the peer back.
    initialWindowSize: 256 * 1024,
  },
  maxHeaderListPairs: 128,
  // In MB. Node's default of 10 cut a session at some 10,800 streams; sessions here have at most
  // 1,000 streams, each with its pending writes.
  maxSessionMemory: 64,
  maxOutstandingPings: 10,
  maxOutstandingSettings: 10,
  maxSessionInvalidFrames: 100,
  maxSessionRejectedStreams: 100,
  // Against rapid reset (CVE-2023-44487): the burst of resets, and the resets per second in the
  // long run.
  streamResetBurst: 1_000,
  streamResetRate: 100,
  unknownProtocolTimeout: 10_000,
};

/** The inner servers of the pinned httpolyglot version. */
type Inner = { _httpServer: Http1Server; _http2Server: Http2Server; _tlsServer: TlsServer };

/** Listens, or refuses when the address cannot be had. */
export async function openPort(options: PortOptions): Promise<Port> {
  const { log } = options;
  const lastLine = options.lastLine ?? createLastLine({ log });
  let isDraining = false;
  const server = createServer(
    {
      http: {
        ...http1Options,
        headersTimeout: options.headersTimeoutMs ?? headersTimeoutMsDefault,
        connectionsCheckingInterval: Math.min(
          5_000,
          (options.headersTimeoutMs ?? headersTimeoutMsDefault) / 2,
        ),
      },
      http2: http2Options,
      ...(options.tls
        ? {
            tls: {
              ...options.tls,
              ALPNProtocols: ["h2", "http/1.1"],
              minVersion: "TLSv1.2" as const,
              handshakeTimeout: options.firstBytesTimeoutMs ?? firstBytesTimeoutMsDefault,
            },
          }
        : {}),
    },
    (request, response) => {
      const isCleartext = options.tls !== undefined && !isEncrypted(request);
      if ((isCleartext || isDraining) && request.httpVersionMajor === 1)
        response.setHeader("connection", "close");
      if (options.tls !== undefined && !isCleartext) response.setHeader(...strictTransport);
      if (isCleartext) return refuse(response, "This port speaks TLS: use https://");
      // Node's HTTP/1 parser accepts any version number, also 2.0.
      if (!("stream" in request) && request.httpVersionMajor !== 1) {
        return refuse(response, "HTTP/1.1 is spoken here, and HTTP/2 after its preface");
      }
      // Streams of HTTP/2 were checked before they became requests.
      const problem = request.httpVersionMajor === 1 ? http1Problem(request as IncomingMessage) : undefined;
      if (problem !== undefined) return refuse(response, problem);
      const end = () => endRequest(request, response);
      if (request.httpVersionMajor === 2) endWithAnswer((request as unknown as Http2ServerRequest).stream);
      else if (!beginOver1(options.crowd, request as IncomingMessage, response as ServerResponse)) {
        return refuseBusy(response as ServerResponse);
      }
      lastLine.guard(request, end);
      lastLine.guard(response, end);
      lastLine.run(end, () => options.handler(request, response));
    },
  ) as NetServer;
  const { _httpServer: http1, _http2Server: http2, _tlsServer: tls } = server as unknown as Inner;
  for (const one of [server, http1, http2, tls]) guardServer(one, lastLine);
  paceConnections(server, options.crowd);
  // Node starts its check for slow headers when the server listens. `http1` never listens: it is
  // handed its connections.
  http1.emit("listening");
  useNativeStreams(http2);
  answerConnect(http1);
  lookAtStreams(http2, { ...options, lastLine });
  server.maxConnections = options.connectionsMax ?? connectionsMaxDefault;

  const sockets = new Set<Socket>();
  watchFirstBytes({ server, http1, http2, tls, sockets, options: { ...options, lastLine } });
  const sessions = watchSessions(http2, { ...options, lastLine });
  for (const [emitter, event] of [
    [http2, "sessionError"],
    [tls, "tlsClientError"],
  ] as const) {
    emitter.on(event, (error: Error) => logConnectionError(log, error));
  }
  // Node's TLS and HTTP/2 servers raise "error" events; a listener on each keeps them from ending
  // the process.
  for (const emitter of [http1, http2, tls]) {
    emitter.on("error", (error: Error) => logConnectionError(log, error));
  }
  const address = await listen(server, options);
  server.on("error", (error) => log.error({ err: error }, "the port has a problem"));

  const closed = new Promise<void>((resolve) => {
    server.once("close", resolve);
  });
  const drain = () => {
    if (isDraining) return;
    isDraining = true;
    server.close();
    http1.closeIdleConnections();
  };
  let closing: Promise<void> | undefined;
  return {
    port: address.port,
    url: `${options.tls ? "https" : "http"}://${reachableHost(options.host)}:${address.port}`,
    stats: () => ({ connections: sockets.size, sessions: sessions.size }),
    drain,
    close: (graceMs) => {
      closing ??= (async () => {
        drain();
        for (const session of sessions) session.close();
        // A connection becomes idle after its last request without an event, so idle connections
        // are polled.
        const closeIdle = setInterval(() => http1.closeIdleConnections(), closePollMs);
        const isOver = await within(
          closed.then(() => true),
          graceMs,
        );
        clearInterval(closeIdle);
        if (!isOver) {
          for (const session of sessions) session.destroy();
          for (const socket of sockets) socket.destroy();
          await closed;
        }
        // The server counts a connection as closed a moment before the connection says so.
        while (sockets.size > 0) await new Promise((resolve) => setImmediate(resolve));
        // Ends Node's watch for slow headers.
        http1.close(() => {});
      })();
      return closing;
    },
  };
}

/** The host of a URL by which the local machine reaches a listener at `host`. */
export function reachableHost(host: string): string {
  if (host === "0.0.0.0" || host === "::" || host === "") return "localhost";
  return host.includes(":") ? `[${host}]` : host;
}

function listen(server: NetServer, options: { host: string; port: number }): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const where = `port ${options.port} on ${options.host}`;
      const advice: Record<string, string> = {
        EADDRINUSE: `Something already listens at ${where}. Stop it, or choose another port with --port.`,
        EACCES: `You may not listen at ${where}. Choose one above 1023 with --port.`,
        EADDRNOTAVAIL: `This machine has no address ${options.host}. Choose another with --host.`,
        ENOTFOUND: `The host ${options.host} is unknown. Choose another with --host.`,
      };
      const message = advice[error.code ?? ""];
      reject(message ? new Refusal("failed_precondition", message) : error);
    });
    server.listen({ host: options.host, port: options.port }, () => resolve(server.address() as AddressInfo));
  });
}

/**
 * Gives every connection a deadline to show its protocol: httpolyglot itself would wait for ever.
 */
function watchFirstBytes(watched: {
  server: NetServer;
  http1: Http1Server;
  http2: Http2Server;
  tls: TlsServer;
  sockets: Set<Socket>;
  options: PortOptions & { lastLine: LastLine };
}): void {
  const { server, sockets, options } = watched;
  const timeoutMs = options.firstBytesTimeoutMs ?? firstBytesTimeoutMsDefault;
  const deadlines = new WeakMap<Socket, NodeJS.Timeout>();
  const begin = (socket: Socket) => {
    const timer = setTimeout(() => socket.destroy(), timeoutMs);
    deadlines.set(socket, timer);
    socket.once("close", () => clearTimeout(timer));
  };
  const end = (socket: Socket) => clearTimeout(deadlines.get(socket));

  // httpolyglot passes its listeners on to the inner servers, which receive the same connection
  // once more.
  server.on("connection", function (this: unknown, socket: Socket) {
    if (this !== server) return;
    options.lastLine.guard(socket, () => socket.destroy());
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", (error) => logConnectionError(options.log, error));
    // Small messages in both directions: waiting to fill a packet only delays them.
    socket.setNoDelay(true);
    begin(socket);
  });
  watched.tls.on("connection", end);
  // Runs before httpolyglot's own listener, which may hand the connection on at once and so end its
  // deadline.
  watched.tls.prependListener("secureConnection", (socket: TLSSocket) => {
    options.lastLine.guard(socket, () => socket.destroy());
    socket.on("error", (error) => logConnectionError(options.log, error));
    begin(socket);
  });
  watched.http1.on("connection", end);
  watched.http2.on("connection", end);
}

/**
 * httpolyglot makes HTTP/2 read and write plain connections through JavaScript, as needed for
 * streams without a socket. Connections here are sockets, and native reads and writes cost a
 * quarter less CPU per round trip (20 instead of 27 µs).
 */
function useNativeStreams(http2: Http2Server): void {
  http2.prependListener("connection", (socket: Socket) => {
    const handle = (socket as unknown as { _handle?: { isStreamBase: boolean } })._handle;
    if (socket instanceof Socket && !(socket as TLSSocket).encrypted && handle) handle.isStreamBase = true;
  });
}

/**
 * Hands on a few new connections in each turn of the event loop. The data a connection has sent by
 * then is processed in one go, so a thousand simultaneous connections would make all other clients
 * wait for the thousand. Addresses with a known connection go first; the others take turns, so that
 * a crowd from some addresses does not hold up another address.
 */
function paceConnections(server: NetServer, crowd: Crowd | undefined): void {
  const emit = server.emit;
  const known = createTurns<Socket>();
  const others = createTurns<Socket>();
  let isPacing = false;
  const next = () => {
    for (let handed = 0; handed < connectionsPerTurn; ) {
      const socket = known.take() ?? others.take();
      if (!socket) break;
      if (socket.destroyed) continue;
      handed += 1;
      Reflect.apply(emit, server, ["connection", socket]);
    }
    isPacing = known.size + others.size > 0;
    if (isPacing) setImmediate(next);
  };
  server.emit = (event: string, ...args: unknown[]): boolean => {
    if (event !== "connection") return Reflect.apply(emit, server, [event, ...args]);
    const [socket] = args as [Socket];
    // An error before the connection is handed on needs no handling.
    socket.on("error", () => {});
    const turns = crowd?.hasKnownNeighbour(socket) ? known : others;
    crowd?.enter(socket);
    turns.add(networkOf(socket.remoteAddress ?? ""), socket);
    if (!isPacing) setImmediate(next);
    isPacing = true;
    return true;
  };
}

/**
 * An error thrown by a listener of a server ends the connection, session or stream of the event.
 */
function guardServer(server: EventEmitter, lastLine: LastLine): void {
  const emit = server.emit;
  server.emit = (...args: Parameters<EventEmitter["emit"]>): boolean => {
    const end = () => {
      const about = args.slice(1).find((arg) => typeof (arg as Socket | undefined)?.destroy === "function");
      (about as Socket | undefined)?.destroy();
    };
    return lastLine.run(end, () => emit.apply(server, args)) ?? true;
  };
}

/**
 * Checks the authority of each HTTP/2 stream, and offers the stream to `takeStream` before Node
 * makes a request and a response of the stream: the two objects are a third of the cost of a stream
 * held open for hours.
 */
function lookAtStreams(
  http2: Http2Server,
  options: Pick<PortOptions, "takeStream" | "tls" | "crowd"> & { lastLine: LastLine },
): void {
  type Listener = (...args: unknown[]) => void;
  const compatible = http2.listeners("stream") as Listener[];
  http2.removeAllListeners("stream");
  http2.on("stream", (stream, headers, flags, ...rest: unknown[]) => {
    const end = () => endStream(stream);
    // First of all: a stream that ended while it was being created still emits its error.
    options.lastLine.guard(stream, end);
    const visit = beginOver2(options.crowd, stream, { headers, flags });
    if (options.crowd && !visit) return cutStream(stream);
    options.lastLine.run(end, () => {
      const isCleartext =
        options.tls !== undefined && !(stream.session?.socket as TLSSocket | undefined)?.encrypted;
      const problem = http2Problem(headers);
      if (problem !== undefined && !isCleartext) return refuseStream(stream, problem);
      const taken = isCleartext ? undefined : options.takeStream?.(stream, headers);
      if (taken) return taken;
      for (const listener of compatible) listener.call(http2, stream, headers, flags, ...rest);
      return undefined;
    });
  });
}

/** Counts an HTTP/1 request in; false if its address has made too many. */
function beginOver1(crowd: Crowd | undefined, request: IncomingMessage, response: ServerResponse): boolean {
  if (!crowd) return true;
  const { headers, socket } = request;
  const path = pathOf(request.url);
  const visit = crowd.begin(request, {
    headers,
    path,
    peer: socket,
    cut: () => socket.destroy(),
    over: response,
  });
  if (visit) request.once("end", () => visit.whole());
  return visit !== undefined;
}

/** As {@link beginOver1}, for a stream of HTTP/2. */
function beginOver2(
  crowd: Crowd | undefined,
  stream: ServerHttp2Stream,
  { headers, flags }: { headers: IncomingHttpHeaders; flags: number },
): Visit | undefined {
  const peer = stream.session?.socket;
  if (!crowd || !peer) return undefined;
  const cut = () => cutStream(stream);
  const visit = crowd.begin(stream, { headers, path: pathOf(headers[":path"]), peer, cut, over: stream });
  if ((flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0) visit?.whole();
  else stream.once("end", () => visit?.whole());
  return visit;
}

function pathOf(target: string | string[] | undefined): string {
  return String(target ?? "").split("?", 1)[0]!;
}

/**
 * Resets a stream and drops its received data, which Node would otherwise keep until a reader takes
 * it.
 */
function cutStream(stream: ServerHttp2Stream): void {
  if (stream.destroyed) return;
  stream.on("error", () => {});
  stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  stream.destroy();
}

/**
 * Ends an HTTP/2 request answered before its whole body arrived: Node would keep later data for no
 * reader.
 */
function endWithAnswer(stream: ServerHttp2Stream): void {
  stream.once("wantTrailers", () => {
    if (!stream.state.remoteClose) stopReading(stream);
  });
}

function refuseBusy(response: ServerResponse): void {
  response.writeHead(429, { "content-type": "text/plain", "retry-after": "10", connection: "close" });
  response.end("too many requests without a token from this address; wait, or use a token\n");
}

/**
 * Answers `CONNECT` with 405. Node closes the connection without an answer; HTTP/2 answers 405 by
 * itself.
 */
function answerConnect(http1: Http1Server): void {
  http1.on("connect", (_request, socket) => {
    const reason = "This is no proxy: CONNECT is not served.\n";
    socket.on("error", () => {});
    socket.end(
      "HTTP/1.1 405 Method Not Allowed\r\nconnection: close\r\ncontent-type: text/plain\r\n" +
        `content-length: ${reason.length}\r\n\r\n${reason}`,
    );
  });
}

/** Ends a request whose handler failed: with 500 if no byte of an answer has left. */
function endRequest(
  request: IncomingMessage | Http2ServerRequest,
  response: ServerResponse | Http2ServerResponse,
): void {
  if (request.httpVersionMajor === 2) {
    endStream((request as Http2ServerRequest).stream);
    return;
  }
  const answer = response as ServerResponse;
  if (answer.writableEnded) return;
  if (answer.headersSent) {
    answer.destroy();
    return;
  }
  answer.writeHead(500, { "content-type": "text/plain", connection: "close" });
  answer.end("internal error\n");
}

function endStream(stream: ServerHttp2Stream): void {
  if (stream.destroyed || stream.closed) return;
  if (stream.headersSent) {
    stream.close(constants.NGHTTP2_INTERNAL_ERROR);
    return;
  }
  stream.on("error", () => {});
  stream.respond({ ":status": 500, "content-type": "text/plain" });
  stream.end("internal error\n");
  stopReading(stream);
}

function refuseStream(stream: ServerHttp2Stream, reason: string): void {
  stream.on("error", () => {});
  stream.respond({ ":status": 400, "content-type": "text/plain" });
  stream.end(`${reason}\n`);
  stopReading(stream);
}

/** Stops reading: later data has no use. A reset in the same turn would overtake the answer. */
function stopReading(stream: ServerHttp2Stream): void {
  setImmediate(() => {
    if (!stream.destroyed) stream.close(constants.NGHTTP2_NO_ERROR);
  });
}

/** Keeps the set of HTTP/2 sessions, pings silent sessions, and ends dead or idle sessions. */
function watchSessions(
  http2: Http2Server,
  options: PortOptions & { lastLine: LastLine },
): Set<ServerHttp2Session> {
  const intervalMs = options.pingIntervalMs ?? pingIntervalMsDefault;
  const timeoutMs = options.pingTimeoutMs ?? pingTimeoutMsDefault;
  const sessions = new Set<ServerHttp2Session>();
  http2.on("session", (session) => {
    options.lastLine.guard(session, () => session.destroy());
    options.crowd?.speaksHttp2(session.socket, () => session.destroy());
    sessions.add(session);
    let streams = 0;
    let mayHaveMore = false;
    let idleSince = performance.now();
    session.on("stream", (stream) => {
      streams++;
      if (streams === streamsBeforeMore && !mayHaveMore) {
        mayHaveMore = options.crowd?.isKnown(session.socket) ?? true;
        if (mayHaveMore) session.settings({ maxConcurrentStreams: knownStreamsMax });
      }
      stream.once("close", () => {
        streams--;
        idleSince = performance.now();
      });
    });

    let timer: NodeJS.Timeout;
    let bytesRead = 0;
    const lookLater = () => {
      // Randomized by up to +20 %, so that sessions opened together are not pinged together.
      timer = setTimeout(look, intervalMs * (1 + Math.random() * 0.2));
      timer.unref();
    };
    const look = () => {
      if (session.destroyed) return;
      if (streams === 0 && performance.now() - idleSince > idleSessionTimeoutMs) session.close();
      if (session.destroyed) return;
      const before = bytesRead;
      bytesRead = session.socket.bytesRead;
      if (bytesRead > before) lookLater();
      else ping();
    };
    const ping = () => {
      timer = setTimeout(() => {
        options.log.debug("a peer does not answer the ping; its session is destroyed");
        // A polite close would wait for the same peer.
        session.destroy();
      }, timeoutMs);
      timer.unref();
      try {
        session.ping((error) => {
          clearTimeout(timer);
          if (error || session.destroyed) return;
          // The answer itself is not the peer's own word.
          bytesRead = session.socket.bytesRead;
          lookLater();
        });
      } catch {
        // The session ended at the same moment.
        clearTimeout(timer);
      }
    };
    session.once("close", () => {
      clearTimeout(timer);
      sessions.delete(session);
    });
    lookLater();
  });
  return sessions;
}

function isEncrypted(request: IncomingMessage | Http2ServerRequest): boolean {
  return (request.socket as TLSSocket).encrypted === true;
}

function refuse(response: ServerResponse | Http2ServerResponse, reason: string): void {
  (response as ServerResponse).writeHead(400, { "content-type": "text/plain" });
  response.end(`${reason}\n`);
}

/**
 * Errors of peers that go away. They are not logged at a visible level, because thousands may
 * happen at once.
 */
const ordinaryErrors = new Set([
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENOTCONN",
  "ERR_STREAM_PREMATURE_CLOSE",
  "ERR_STREAM_WRITE_AFTER_END",
  "ERR_HTTP2_ERROR",
  "ERR_HTTP2_SESSION_ERROR",
  "ERR_HTTP2_STREAM_CANCEL",
  "ERR_HTTP2_INVALID_SESSION",
  "ERR_HTTP2_PING_CANCEL",
  "ERR_TLS_HANDSHAKE_TIMEOUT",
  "EPROTO",
]);

function logConnectionError(log: Logger, error: NodeJS.ErrnoException): void {
  const code = error.code ?? "";
  const isOrdinary = ordinaryErrors.has(code) || code.startsWith("ERR_SSL_");
  log[isOrdinary ? "debug" : "warn"]({ err: error }, "a connection broke");
}
