import type { EventEmitter } from "node:events";
import type { Server as Http1Server } from "node:http";
import type { Http2Server } from "node:http2";
import { type Server as NetServer, Socket } from "node:net";
import type { TLSSocket, Server as TlsServer } from "node:tls";
import type { Logger } from "../../../telemetry/log.ts";
import { networkOf } from "../crowd/buckets.ts";
import type { Crowd } from "../crowd/crowd.ts";
import { createTurns } from "../crowd/turns.ts";
import type { LastLine, Owner } from "./last-line.ts";

const noError = () => {};
const destroy = (socket: Socket) => void socket.destroy();

/** New connections handed on per turn of the event loop. */
const connectionsPerTurn = 4;

/**
 * Gives every connection a deadline to show its protocol: httpolyglot itself would wait for ever.
 */
export function watchFirstBytes(watched: {
  server: NetServer;
  http1: Http1Server;
  http2: Http2Server;
  tls: TlsServer;
  sockets: Set<Socket>;
  timeoutMs: number;
  log: Logger;
  lastLine: LastLine;
}): void {
  const { server, sockets, timeoutMs, log, lastLine } = watched;
  const deadlines = new WeakMap<Socket, NodeJS.Timeout>();
  const end = (socket: Socket) => {
    clearTimeout(deadlines.get(socket));
    deadlines.delete(socket);
  };
  // Shared by all connections, which may be many and idle.
  function onClose(this: Socket): void {
    end(this);
    sockets.delete(this);
  }
  const onError = (error: Error) => logConnectionError(log, error);
  const begin = (socket: Socket) => {
    deadlines.set(
      socket,
      setTimeout(() => socket.destroy(), timeoutMs),
    );
    socket.on("close", onClose);
  };

  // httpolyglot passes its listeners on to the inner servers, which receive the same connection
  // once more.
  server.on("connection", function (this: unknown, socket: Socket) {
    if (this !== server) return;
    lastLine.guard(socket, destroy);
    sockets.add(socket);
    socket.on("error", onError);
    socket.off("error", noError);
    // Small messages in both directions: waiting to fill a packet only delays them.
    socket.setNoDelay(true);
    begin(socket);
  });
  watched.tls.on("connection", end);
  // Runs before httpolyglot's own listener, which may hand the connection on at once and so end its
  // deadline.
  watched.tls.prependListener("secureConnection", (socket: TLSSocket) => {
    lastLine.guard(socket, destroy);
    socket.on("error", onError);
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
export function useNativeStreams(http2: Http2Server): void {
  http2.prependListener("connection", (socket: Socket) => {
    const handle = (socket as unknown as { _handle?: { isStreamBase: boolean } })._handle;
    if (socket instanceof Socket && !(socket as TLSSocket).encrypted && handle) handle.isStreamBase = true;
  });
}

/**
 * Hands on a few new connections in each turn of the event loop. The data a connection has sent by
 * then is processed in one go, so a thousand simultaneous connections would make all other clients
 * wait for the thousand. Addresses with a known connection go first; the others take turns, so that
 * a crowd from some addresses does not hold up another address. Suspect addresses come last, one
 * connection in each turn.
 */
export function paceConnections(server: NetServer, crowd: Crowd | undefined): void {
  const emit = server.emit;
  const known = createTurns<Socket>();
  const others = createTurns<Socket>();
  const suspects = createTurns<Socket>();
  let isPacing = false;
  const next = () => {
    for (let handed = 0; handed < connectionsPerTurn; ) {
      const socket = known.take() ?? others.take() ?? (handed === 0 ? suspects.take() : undefined);
      if (!socket) break;
      if (socket.destroyed) continue;
      handed += 1;
      Reflect.apply(emit, server, ["connection", socket]);
    }
    isPacing = known.size + others.size + suspects.size > 0;
    if (isPacing) setImmediate(next);
  };
  server.emit = (event: string, ...args: unknown[]): boolean => {
    if (event !== "connection") return Reflect.apply(emit, server, [event, ...args]);
    const [socket] = args as [Socket];
    // An error before the connection is handed on needs no handling.
    socket.on("error", noError);
    const turns = crowd?.hasKnownNeighbour(socket) ? known : crowd?.isSuspect(socket) ? suspects : others;
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
export function guardServer(server: EventEmitter, lastLine: LastLine): void {
  const emit = server.emit;
  server.emit = (...args: Parameters<EventEmitter["emit"]>): boolean => {
    const about = args.slice(1).find((arg) => typeof (arg as Socket | undefined)?.destroy === "function");
    return lastLine.run((about ?? nobody) as Owner, () => emit.apply(server, args)) ?? true;
  };
}

const nobody: Owner = {};

/**
 * Errors that a peer makes by going away or by breaking the protocol. They are not logged at a
 * visible level, because a stranger may make thousands of them at once.
 */
const errnosOfPeers = new Set([
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTCONN",
  "EPROTO",
]);
/** HPE: Node's parser of HTTP/1. */
const kindsOfPeers = ["HPE_", "ERR_HTTP", "ERR_SSL_", "ERR_TLS_", "ERR_STREAM_", "ERR_OSSL_"];

/**
 * Node's TLS and HTTP/2 servers raise "error" events; a listener on each keeps them from ending the
 * process.
 */
export function logErrors(
  servers: { http1: Http1Server; http2: Http2Server; tls: TlsServer },
  log: Logger,
): void {
  const { http1, http2, tls } = servers;
  const onError = (error: Error) => logConnectionError(log, error);
  http2.on("sessionError", onError);
  tls.on("tlsClientError", onError);
  for (const server of [http1, http2, tls]) server.on("error", onError);
}

function logConnectionError(log: Logger, error: NodeJS.ErrnoException): void {
  const code = error.code ?? "";
  const isOrdinary = errnosOfPeers.has(code) || kindsOfPeers.some((kind) => code.startsWith(kind));
  log[isOrdinary ? "debug" : "warn"]({ err: error }, "a connection broke");
}
