import type { Server as Http1Server } from "node:http";
import type { Http2Server } from "node:http2";
import type { AddressInfo, Server as NetServer, Socket } from "node:net";
import type { TlsOptions, Server as TlsServer } from "node:tls";
import { createServer } from "@httptoolkit/httpolyglot";
import { Refusal } from "../../../errors.ts";
import type { Logger } from "../../../telemetry/log.ts";
import { within } from "../../../time/abort.ts";
import type { Crowd } from "../crowd/crowd.ts";
import { guardServer, logErrors, paceConnections, useNativeStreams, watchFirstBytes } from "./connections.ts";
import { createLastLine, type LastLine } from "./last-line.ts";
import { answerConnect, type Handler, lookAtStreams, requestListener, type TakeStream } from "./requests.ts";
import { type Sessions, watchSessions } from "./sessions.ts";

export type PortOptions = {
  host: string;
  /** 0 lets the system choose. */
  port: number;
  /** Certificates (PEM), and with `requestCert` whether clients show theirs. */
  tls?: Pick<TlsOptions, "cert" | "key" | "ca" | "requestCert" | "rejectUnauthorized"> | undefined;
  handler: Handler;
  takeStream?: TakeStream;
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
const closePollMs = 50;

/**
 * A browser has some ten streams. One read of a connection may open up to this number in one turn
 * of the event loop.
 */
const strangerStreamsMax = 100;

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
    serverOptions(options),
    requestListener({ ...options, lastLine, isDraining: () => isDraining }),
  ) as NetServer;
  const { _httpServer: http1, _http2Server: http2, _tlsServer: tls } = server as unknown as Inner;
  for (const one of [server, http1, http2, tls]) guardServer(one, lastLine);
  paceConnections(server, options.crowd);
  // Node starts its check for slow headers when the server listens. `http1` never listens: it is
  // handed its connections.
  http1.emit("listening");
  useNativeStreams(http2);
  answerConnect(http1);
  const sessions = watchSessions(http2, { ...options, lastLine });
  lookAtStreams(http2, { ...options, lastLine, sessions });
  server.maxConnections = options.connectionsMax ?? connectionsMaxDefault;

  const sockets = new Set<Socket>();
  const timeoutMs = options.firstBytesTimeoutMs ?? firstBytesTimeoutMsDefault;
  watchFirstBytes({ server, http1, http2, tls, sockets, timeoutMs, log, lastLine });
  logErrors({ http1, http2, tls }, log);
  const address = await listen(server, options);
  server.on("error", (error) => log.error({ err: error }, "the port has a problem"));

  const drain = () => {
    if (isDraining) return;
    isDraining = true;
    server.close();
    http1.closeIdleConnections();
  };
  const closed = new Promise<void>((resolve) => {
    server.once("close", resolve);
  });
  let closing: Promise<void> | undefined;
  return {
    port: address.port,
    url: `${options.tls ? "https" : "http"}://${reachableHost(options.host)}:${address.port}`,
    stats: () => ({ connections: sockets.size, sessions: sessions.size }),
    drain,
    close(graceMs) {
      drain();
      closing ??= endAll({ http1, sockets, sessions, closed, graceMs });
      return closing;
    },
  };
}

/** Lets requests end, cuts the rest after the grace, and ends what watches the connections. */
async function endAll(open: {
  http1: Http1Server;
  sockets: ReadonlySet<Socket>;
  sessions: Sessions;
  /** Resolves when the last connection has ended. */
  closed: Promise<void>;
  graceMs: number;
}): Promise<void> {
  const { http1, sockets, sessions, closed, graceMs } = open;
  for (const session of sessions.all()) session.close();
  // A connection becomes idle after its last request without an event, so idle connections are
  // polled.
  const closeIdle = setInterval(() => http1.closeIdleConnections(), closePollMs);
  const isOver = await within(
    closed.then(() => true),
    graceMs,
  );
  clearInterval(closeIdle);
  if (!isOver) {
    for (const session of sessions.all()) session.destroy();
    for (const socket of sockets) socket.destroy();
    await closed;
  }
  // The server counts a connection as closed a moment before the connection says so.
  while (sockets.size > 0) await new Promise((resolve) => setImmediate(resolve));
  // Ends Node's watch for slow headers.
  http1.close(() => {});
}

function serverOptions({ tls, headersTimeoutMs, firstBytesTimeoutMs }: PortOptions) {
  const headersTimeout = headersTimeoutMs ?? headersTimeoutMsDefault;
  return {
    http: {
      ...http1Options,
      headersTimeout,
      connectionsCheckingInterval: Math.min(5_000, headersTimeout / 2),
    },
    http2: http2Options,
    ...(tls
      ? {
          tls: {
            ...tls,
            ALPNProtocols: ["h2", "http/1.1"],
            minVersion: "TLSv1.2" as const,
            handshakeTimeout: firstBytesTimeoutMs ?? firstBytesTimeoutMsDefault,
          },
        }
      : {}),
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
