/**
 * The one port. The first bytes of a connection tell whether it is HTTP/1.1, HTTP/2 without TLS, or TLS (and then one
 * of the two within); `httpolyglot` looks at them.
 *
 * - A peer that is gone without a word is noticed: HTTP/2 sessions are pinged, and one that does not answer is
 *   destroyed. (TCP would keep it for many minutes, and Node asks nobody by itself.)
 * - A peer that says nothing, or drips its headers, is cut after a stated time.
 * - Nothing reaches a handler whose authority is malformed (authority.ts), and a handler that fails, now or in a callback
 *   later, ends its own request and no other (last-line.ts).
 * - With TLS configured nothing is served without it, so no token and no client certificate is bypassed by accident.
 * - Closing has three steps: accept nothing new (`drain`), let what runs end (`close`), cut what is left after the grace.
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
import { Refusal } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { http1Problem, http2Problem } from "./authority.ts";
import type { Crowd, Visit } from "./crowd.ts";
import { createLastLine, type LastLine } from "./last-line.ts";

/** What it throws or rejects with ends its request (last-line.ts). */
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
   * Sees each HTTP/2 stream before the handler does. Undefined leaves it to the handler; otherwise it serves it itself until
   * the promise settles, and a rejection cuts the stream.
   */
  takeStream?: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => Promise<void> | undefined;
  log: Logger;
  lastLine?: LastLine;
  /** Bounds what strangers hold; without it nothing is bounded but connections. */
  crowd?: Crowd;
  pingIntervalMs?: number;
  pingTimeoutMs?: number;
  /** How long a connection may take until its first bytes tell its protocol. */
  firstBytesTimeoutMs?: number;
  /** How long a request's headers may take on HTTP/1.1. */
  headersTimeoutMs?: number;
  connectionsMax?: number;
};

export type Port = {
  port: number;
  /** How to reach it from this machine. */
  url: string;
  stats(): { connections: number; sessions: number };
  /** Accepts no connection any more. What is connected stays, and may make further requests. */
  drain(): void;
  /** Also takes no request any more; resolves when all have ended, and cuts those left after `graceMs`. Idempotent. */
  close(graceMs: number): Promise<void>;
};

/** A peer that was silent for so long is pinged. Devices beat more often than that, and are not. */
const pingIntervalMsDefault = 30_000;
const pingTimeoutMsDefault = 10_000;
const firstBytesTimeoutMsDefault = 10_000;
const headersTimeoutMsDefault = 10_000;
/** 20,000 devices with a connection each, their reconnects, and everybody else. */
const connectionsMaxDefault = 25_000;
/** Beyond the 60 s after which common load balancers let go, so that they do and we do not race them. */
const keepAliveTimeoutMs = 75_000;
const requestTimeoutMs = 60_000;
const headerBytesMax = 16 * 1024;
/** A session without any stream for so long is closed; its client opens another when it needs one. */
const idleSessionTimeoutMs = 10 * 60_000;
const closePollMs = 50;

/** A browser has some ten under way. Each read of a connection is worked on in one turn, and may open as many streams. */
const strangerStreamsMax = 100;
/** One connection of a proxy carries many devices; it opens another one beyond this. */
const knownStreamsMax = 1_000;
/** A connection that has so many streams under way of those that it may have is given more, if it is known. */
const streamsBeforeMore = 50;

/** New connections that are handed on in one turn of the event loop. */
const connectionsPerTurn = 8;

/** A browser that was here once comes back over TLS only, also when it is sent to http://. */
const strictTransport = ["strict-transport-security", "max-age=31536000"] as const;

const http1Options = {
  maxHeaderSize: headerBytesMax,
  requestTimeout: requestTimeoutMs,
  keepAliveTimeout: keepAliveTimeoutMs,
};

const http2Options = {
  settings: {
    enablePush: false,
    // At first; a connection that is known may have more (`knownStreamsMax`).
    maxConcurrentStreams: strangerStreamsMax,
    maxHeaderListSize: headerBytesMax,
    // A completion of some hundred KiB needs no round trip for permission; reading slowly still holds the peer back.
    initialWindowSize: 256 * 1024,
  },
  maxHeaderListPairs: 128,
  // In MB. Node's 10 cut a session at some 10,800 streams; ours end at 1,000, each with what waits to be written.
  maxSessionMemory: 64,
  maxOutstandingPings: 10,
  maxOutstandingSettings: 10,
  maxSessionInvalidFrames: 100,
  maxSessionRejectedStreams: 100,
  // Against rapid reset (CVE-2023-44487): so many resets at once, and so many a second on the long run.
  streamResetBurst: 1_000,
  streamResetRate: 100,
  unknownProtocolTimeout: 10_000,
};

/** What the pinned version of httpolyglot is made of. */
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
      // Node's parser of HTTP/1 takes any version for its word, also 2.0.
      if (!("stream" in request) && request.httpVersionMajor !== 1) {
        return refuse(response, "HTTP/1.1 is spoken here, and HTTP/2 after its preface");
      }
      // Streams of HTTP/2 were looked at before they became requests.
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
  paceConnections(server, (socket) => options.crowd?.enter(socket));
  // Node begins to look for slow headers when the server listens. This one never does: it is handed its connections.
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
  // Node's TLS server and HTTP/2 server raise these; a listener on each keeps them from ending the process.
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
        // A connection that ends its last request becomes idle, and nobody tells.
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

/** The host of a URL by which a listener at `host` is reached from this machine. */
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

/** Gives every connection a deadline for showing its protocol: the sniffer itself would wait for ever. */
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

  // httpolyglot passes its listeners on to the servers within, which get the same connection once more.
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
  // Before the sniffer's own listener, which may hand the connection on at once and so end its deadline.
  watched.tls.prependListener("secureConnection", (socket: TLSSocket) => {
    options.lastLine.guard(socket, () => socket.destroy());
    socket.on("error", (error) => logConnectionError(options.log, error));
    begin(socket);
  });
  watched.http1.on("connection", end);
  watched.http2.on("connection", end);
}

/**
 * The sniffer has HTTP/2 read and write plain connections through JavaScript, which it needs for streams that are no
 * sockets. Ours are sockets, and natively a message's round trip costs a fifth less CPU (20 instead of 27 µs).
 */
function useNativeStreams(http2: Http2Server): void {
  http2.prependListener("connection", (socket: Socket) => {
    const handle = (socket as unknown as { _handle?: { isStreamBase: boolean } })._handle;
    if (socket instanceof Socket && !(socket as TLSSocket).encrypted && handle) handle.isStreamBase = true;
  });
}

/**
 * Hands on new connections a few in each turn of the event loop. What a connection has sent by then is worked on in one go,
 * so a thousand that come at once would make everybody else wait for all of them.
 */
function paceConnections(server: NetServer, onArrival: (socket: Socket) => void): void {
  const emit = server.emit;
  let waiting: Socket[] = [];
  const next = () => {
    let handed = 0;
    let index = 0;
    for (; index < waiting.length && handed < connectionsPerTurn; index++) {
      const socket = waiting[index]!;
      if (socket.destroyed) continue;
      handed += 1;
      Reflect.apply(emit, server, ["connection", socket]);
    }
    waiting = waiting.slice(index);
    if (waiting.length > 0) setImmediate(next);
  };
  server.emit = (event: string, ...args: unknown[]): boolean => {
    if (event !== "connection") return Reflect.apply(emit, server, [event, ...args]);
    const [socket] = args as [Socket];
    // Until it is handed on, what happens to it is nobody's error.
    socket.on("error", () => {});
    onArrival(socket);
    if (waiting.push(socket) === 1) setImmediate(next);
    return true;
  };
}

/** What a listener of a server throws ends the connection, session or stream that the event was about. */
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
 * Looks at the authority of each HTTP/2 stream, and shows it to `take` before Node makes a request and a response of it:
 * those two objects are a third of what a stream costs that is held open for hours.
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
    // First of all: a stream that ended while it was being made still tells of its error.
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

/** Counts a request of HTTP/1 in; false if its address has made too many. */
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

/** The same for a stream of HTTP/2. */
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

/** Resets a stream and forgets what has come of it, which would otherwise be kept until somebody reads it. */
function cutStream(stream: ServerHttp2Stream): void {
  if (stream.destroyed) return;
  stream.on("error", () => {});
  stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  stream.destroy();
}

/** An HTTP/2 request that was answered before all of it came is over: what still comes would be kept for nobody. */
function endWithAnswer(stream: ServerHttp2Stream): void {
  stream.once("wantTrailers", () => {
    if (!stream.state.remoteClose) stopReading(stream);
  });
}

function refuseBusy(response: ServerResponse): void {
  response.writeHead(429, { "content-type": "text/plain", "retry-after": "10", connection: "close" });
  response.end("too many requests without a token from this address; wait, or use a token\n");
}

/** Node hangs up on `CONNECT` without a word. HTTP/2 has its own answer to it: 405. */
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

/** Ends a request whose handler failed: with 500 as long as nothing of an answer has left. */
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

/** What the peer still sends is of no use; a reset in the same turn would overtake the answer. */
function stopReading(stream: ServerHttp2Stream): void {
  setImmediate(() => {
    if (!stream.destroyed) stream.close(constants.NGHTTP2_NO_ERROR);
  });
}

/** Keeps the set of HTTP/2 sessions, pings those that are silent, and ends those that are dead or idle. */
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
      // Spread, so that those who came together are not pinged together.
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
        // The session ended in this very moment.
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

/** A peer that goes away in its own manner is not worth a line, and thousands may do so in one moment. */
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
