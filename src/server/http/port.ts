/**
 * The one port. The first bytes of a connection tell whether it is HTTP/1.1, HTTP/2 without TLS, or TLS (and then one
 * of the two within); `httpolyglot` looks at them.
 *
 * - A peer that is gone without a word is noticed: HTTP/2 sessions are pinged, and one that does not answer is
 *   destroyed. (TCP would keep it for many minutes, and Node asks nobody by itself.)
 * - A peer that says nothing, or drips its headers, is cut after a stated time.
 * - With TLS configured nothing is served without it, so no token and no client certificate is bypassed by accident.
 * - Closing has three steps: accept nothing new (`drain`), let what runs end (`close`), cut what is left after the grace.
 */
import type { Server as Http1Server, IncomingMessage, ServerResponse } from "node:http";
import type {
  Http2Server,
  Http2ServerRequest,
  Http2ServerResponse,
  IncomingHttpHeaders,
  ServerHttp2Session,
  ServerHttp2Stream,
} from "node:http2";
import { type AddressInfo, type Server as NetServer, Socket } from "node:net";
import type { TLSSocket, TlsOptions, Server as TlsServer } from "node:tls";
import { createServer } from "@httptoolkit/httpolyglot";
import { within } from "../../abort.ts";
import { Refusal } from "../../errors.ts";
import type { Logger } from "../../log.ts";

export type Handler = (
  request: IncomingMessage | Http2ServerRequest,
  response: ServerResponse | Http2ServerResponse,
) => void;

export type PortOptions = {
  host: string;
  /** 0 lets the system choose. */
  port: number;
  /** Certificates (PEM), and with `requestCert` whether clients show theirs. */
  tls?: Pick<TlsOptions, "cert" | "key" | "ca" | "requestCert" | "rejectUnauthorized"> | undefined;
  handler: Handler;
  /** Sees each HTTP/2 stream before the handler does; true if it serves it itself. */
  takeStream?: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => boolean;
  log: Logger;
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

const http1Options = {
  maxHeaderSize: headerBytesMax,
  requestTimeout: requestTimeoutMs,
  keepAliveTimeout: keepAliveTimeoutMs,
};

const http2Options = {
  settings: {
    enablePush: false,
    // One connection of a proxy carries many devices; it opens another one beyond this.
    maxConcurrentStreams: 1_000,
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
      if (isCleartext) return refuseCleartext(response);
      options.handler(request, response);
    },
  ) as NetServer;
  const { _httpServer: http1, _http2Server: http2, _tlsServer: tls } = server as unknown as Inner;
  // Node begins to look for slow headers when the server listens. This one never does: it is handed its connections.
  http1.emit("listening");
  useNativeStreams(http2);
  if (options.takeStream) divertStreams(http2, options.takeStream, options.tls !== undefined);
  server.maxConnections = options.connectionsMax ?? connectionsMaxDefault;

  const sockets = new Set<Socket>();
  watchFirstBytes({ server, http1, http2, tls, sockets, options });
  const sessions = watchSessions(http2, options);
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

function reachableHost(host: string): string {
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
  options: PortOptions;
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
 * Shows streams to `take` before Node makes a request and a response of them: those two objects are a third of what a
 * stream costs that is held open for hours.
 */
function divertStreams(
  http2: Http2Server,
  take: NonNullable<PortOptions["takeStream"]>,
  isTlsOnly: boolean,
): void {
  type Listener = (...args: unknown[]) => void;
  const compatible = http2.listeners("stream") as Listener[];
  http2.removeAllListeners("stream");
  http2.on("stream", function (this: unknown, stream, headers, ...rest: unknown[]) {
    const isCleartext = isTlsOnly && !(stream.session?.socket as TLSSocket | undefined)?.encrypted;
    if (!isCleartext && take(stream, headers)) return;
    for (const listener of compatible) listener.call(http2, stream, headers, ...rest);
  });
}

/** Keeps the set of HTTP/2 sessions, pings those that are silent, and ends those that are dead or idle. */
function watchSessions(http2: Http2Server, options: PortOptions): Set<ServerHttp2Session> {
  const intervalMs = options.pingIntervalMs ?? pingIntervalMsDefault;
  const timeoutMs = options.pingTimeoutMs ?? pingTimeoutMsDefault;
  const sessions = new Set<ServerHttp2Session>();
  http2.on("session", (session) => {
    sessions.add(session);
    let streams = 0;
    let idleSince = performance.now();
    session.on("stream", (stream) => {
      streams++;
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

function refuseCleartext(response: ServerResponse | Http2ServerResponse): void {
  (response as ServerResponse).writeHead(400, { "content-type": "text/plain" });
  response.end("This port speaks TLS: use https://\n");
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
