/**
 * Strangers at the port: connections and requests that have shown no valid token. Every connection
 * starts as a stranger.
 *
 * - A connection is a stranger until a token on it has been verified. Strangers share a part of all
 *   connections, and each address has a part of that share. Beyond either limit the port closes the
 *   stranger's connection with the longest idle time, so that new connections are served. Known
 *   connections are never closed for a new connection.
 * - The port closes a connection without any request after 10 s, and an idle HTTP/2 connection
 *   after 75 s.
 * - A stranger's request must be complete within 10 s, a known request within 60 s. The bytes of
 *   all bodies together are limited.
 * - Requests without a token are counted by address and in all; requests above the limits are
 *   refused before any work is done, and their connections are closed soon.
 * - New connections of addresses that have a known connection are served before others, which take
 *   turns by address.
 *
 * Behind proxies, connections belong to the proxies and are not counted by address; requests are
 * counted by the client address that the proxy reports.
 */
import type { EventEmitter } from "node:events";
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import { createBuckets, networkOf } from "../../buckets.ts";
import type { CutReason } from "../../metrics.ts";
import { createBodyBudget, type Held } from "./body-budget.ts";

export type CrowdOptions = {
  /** Maximum number of strangers' connections, in all and of one address. */
  connectionsMax: number;
  connectionsPerAddress: number;
  /** Maximum number of requests per second without a token from one address; 0: no limit. */
  requestsPerAddress: number;
  /** Maximum number of bytes held of known requests' bodies. */
  knownBytesMax: number;
  /** Whether connections come from proxies, and the address a request comes from. */
  isBehindProxies: boolean;
  addressOf: (headers: IncomingHttpHeaders, remoteAddress: string | undefined) => string;
  onCut?: (reason: CutReason) => void;
  now?: () => number;
};

/**
 * Bytes. Many times the need of strangers: an Enroll has some hundred bytes and is answered within
 * milliseconds.
 */
const strangerBytesMaxTotal = 16 * 1024 * 1024;
/** Maximum number of strangers' incomplete requests; the oldest is cut first. */
const strangerRequestsMax = 4_096;
const strangerRequestMs = 10_000;
const knownRequestMs = 60_000;
const firstRequestMs = 10_000;
/** Above 60 s, the idle timeout of common load balancers. */
const restMs = 75_000;
const lookEveryMs = 1_000;
const addressesMax = 20_000;
/**
 * Seconds of allowance that an address saves up: the burst of a browser page, or of many clients
 * behind one address.
 */
const burstSeconds = 10;
/** A stranger's connection with this number of refused requests is closed. */
const refusalsMax = 8;
/**
 * A stranger's connection with this number of incomplete requests is closed; no client needs so
 * many.
 */
const incompletePerConnectionMax = 16;
/**
 * Requests per second without a token, of all addresses together. Limits their cost for all other
 * clients.
 */
const strangerRequestsPerSecond = 1_000;
const strangerRequestsBurst = 2_000;
const allKey = "all";
/** The probes of load balancers cost little and are answered under any load. */
const probePaths = new Set(["/healthz", "/readyz", "/metrics"]);

type Connection = {
  close(): void;
  key: string;
  network: string;
  requests: number;
  hasAsked: boolean;
  since: number;
  refusals: number;
  /** Number of requests received in part. */
  incomplete: number;
  isKnown: boolean;
};

/** A request, from its headers to its end. */
export class Visit implements Held {
  holder: string;
  isWhole = false;
  isKnown = false;
  /** Messages may arrive until the stream ends; a stream is never complete before. */
  isStream = false;
  readonly since: number;
  readonly #crowd: CrowdInside;
  readonly #connection: Connection | undefined;
  readonly #cut: () => void;

  constructor(
    crowd: CrowdInside,
    options: { holder: string; connection: Connection | undefined; since: number; cut: () => void },
  ) {
    this.#crowd = crowd;
    this.holder = options.holder;
    this.since = options.since;
    this.#connection = options.connection;
    this.#cut = options.cut;
  }

  /** A good token was shown. */
  recognise(tokenId: string): void {
    if (this.isKnown) return;
    const bytes = this.#bytes;
    this.release();
    this.isKnown = true;
    this.holder = tokenId;
    this.#crowd.recognised(this, this.#connection);
    this.hold(bytes);
  }

  /** No good token was shown. */
  judgeStranger(): void {
    if (!this.isKnown) this.#crowd.strange(this);
  }

  #bytes = 0;

  /** Raises the request's bytes in memory to at least `bytes`. May cut the request. */
  holdAtLeast(bytes: number): void {
    if (bytes > this.#bytes) this.hold(bytes - this.#bytes);
  }

  /** Sets the request's bytes in memory to `bytes`. May cut the request. */
  holdExactly(bytes: number): void {
    this.hold(bytes - this.#bytes);
  }

  /** Adds `bytes` (negative: subtracts) to the request's bytes in memory. May cut the request. */
  hold(bytes: number): void {
    if (bytes === 0) return;
    this.#bytes += bytes;
    this.#crowd.budgetOf(this).hold(this, bytes);
  }

  release(): void {
    this.#bytes = 0;
    this.#crowd.budgetOf(this).release(this);
  }

  /** Marks the body as received completely. */
  whole(): void {
    this.isWhole = true;
    this.#crowd.settled(this, this.#connection);
  }

  /** Marks the request as answered or gone. */
  end(): void {
    this.isWhole = true;
    this.release();
    this.#crowd.settled(this, this.#connection);
  }

  cut(): void {
    this.#cut();
  }
}

type CrowdInside = {
  recognised(visit: Visit, connection: Connection | undefined): void;
  strange(visit: Visit): void;
  settled(visit: Visit, connection: Connection | undefined): void;
  budgetOf(visit: Visit): ReturnType<typeof createBodyBudget>;
};

/** A request of HTTP/1, or a stream of HTTP/2. */
type Asked = IncomingMessage | ServerHttp2Stream;
type Peer = { remoteAddress?: string | undefined; remotePort?: number | undefined };

export type Crowd = {
  /** Counts a connection in until it closes. */
  enter(socket: Socket): void;
  /** Notes that the peer speaks HTTP/2 and closes by `close`. */
  speaksHttp2(peer: Peer, close: () => void): void;
  /**
   * Counts a request in until `over` has closed. Undefined if the address has made too many
   * requests; the caller then refuses the request.
   */
  begin(
    asked: Asked,
    options: {
      headers: IncomingHttpHeaders;
      path: string;
      peer: Peer;
      cut: () => void;
      over: EventEmitter;
    },
  ): Visit | undefined;
  find(asked: Asked): Visit | undefined;
  /** Whether a valid token came over the connection. */
  isKnown(peer: Peer): boolean;
  /** Whether the peer's address has another connection over which a valid token came. */
  hasKnownNeighbour(peer: Peer): boolean;
  stats(): CrowdStats;
  close(): void;
};

export type CrowdStats = {
  connections: { known: number; stranger: number };
  bytes: { known: number; stranger: number };
};

export function createCrowd(options: CrowdOptions): Crowd {
  const now = options.now ?? (() => performance.now());
  const cutBy = (reason: CutReason) => options.onCut?.(reason);
  /** By the peer's address and port: TLS and HTTP/2 wrap the socket and keep both. */
  const connections = new Map<string, Connection>();
  /**
   * Strangers' connections, the longest idle first; `busy` connections have a request under way.
   */
  const resting = new Set<Connection>();
  const busy = new Set<Connection>();
  const byNetwork = new Map<string, Set<Connection>>();
  /** Number of known connections by address. */
  const knownOf = new Map<string, number>();
  const visits = new WeakMap<object, Visit>();
  /** Incomplete requests, the oldest first. */
  const strangers = new Set<Visit>();
  const incomplete = new Set<Visit>();
  const bytes = {
    stranger: createBodyBudget({ bytesMax: strangerBytesMaxTotal, onCut: () => cutBy("stranger_bytes") }),
    known: createBodyBudget({ bytesMax: options.knownBytesMax, onCut: () => cutBy("body_bytes") }),
  };
  const everybodys = createBuckets({
    perMs: strangerRequestsPerSecond / 1_000,
    burst: strangerRequestsBurst,
    keysMax: 1,
    now,
  });
  const requests = createBuckets({
    perMs: options.requestsPerAddress / 1_000,
    burst: options.requestsPerAddress * burstSeconds,
    keysMax: addressesMax,
    now,
  });

  function leaveStrangers(connection: Connection): void {
    resting.delete(connection);
    busy.delete(connection);
    const own = byNetwork.get(connection.network);
    own?.delete(connection);
    if (own?.size === 0) byNetwork.delete(connection.network);
  }

  function forgetKnown(network: string): void {
    const left = (knownOf.get(network) ?? 0) - 1;
    if (left > 0) knownOf.set(network, left);
    else knownOf.delete(network);
  }

  function place(connection: Connection): void {
    if (connection.isKnown || !connections.has(connection.key)) return;
    resting.delete(connection);
    busy.delete(connection);
    (connection.requests > 0 ? busy : resting).add(connection);
  }

  function hangUp(connection: Connection, reason: CutReason): void {
    leaveStrangers(connection);
    cutBy(reason);
    connection.close();
  }

  /**
   * The connection with the longest idle time, of all or of one address; the oldest connection if
   * none is idle.
   */
  function first(among: Iterable<Connection>): Connection | undefined {
    let oldest: Connection | undefined;
    for (const connection of among) {
      oldest ??= connection;
      if (connection.requests === 0) return connection;
    }
    return oldest;
  }

  function makeRoom(newcomer: Connection): void {
    const own = byNetwork.get(newcomer.network)!;
    if (!options.isBehindProxies && own.size > options.connectionsPerAddress) {
      hangUp(first(own)!, "address_crowded");
    }
    if (resting.size + busy.size > options.connectionsMax) {
      const [oldest] = resting.size > 0 ? resting : busy;
      hangUp(oldest!, "crowded");
    }
  }

  const inside: CrowdInside = {
    recognised(visit, connection) {
      strangers.delete(visit);
      if (!connection || connection.isKnown) return;
      leaveStrangers(connection);
      connection.isKnown = true;
      if (connections.has(connection.key))
        knownOf.set(connection.network, (knownOf.get(connection.network) ?? 0) + 1);
    },
    strange(visit) {
      if (visit.isWhole) return;
      strangers.add(visit);
      if (strangers.size <= strangerRequestsMax) return;
      const [oldest] = strangers;
      strangers.delete(oldest!);
      cutBy("crowded");
      oldest!.cut();
    },
    settled(visit, connection) {
      strangers.delete(visit);
      if (incomplete.delete(visit) && connection) connection.incomplete -= 1;
    },
    budgetOf: (visit) => (visit.isKnown ? bytes.known : bytes.stranger),
  };

  function look(): void {
    const at = now();
    for (const visit of incomplete) {
      if (at - visit.since < strangerRequestMs) break;
      const isLate = !visit.isKnown || (!visit.isStream && at - visit.since >= knownRequestMs);
      if (!isLate) continue;
      cutBy(visit.isKnown ? "slow_body" : "slow_stranger");
      visit.cut();
    }
    for (const connection of resting) {
      const restsMs = at - connection.since;
      if (!connection.hasAsked && restsMs >= firstRequestMs) hangUp(connection, "no_request");
      else if (restsMs >= restMs) hangUp(connection, "rests");
    }
  }
  const timer = setInterval(look, lookEveryMs);
  timer.unref();

  return {
    enter(socket) {
      const key = keyOf(socket);
      const connection: Connection = {
        key,
        network: networkOf(socket.remoteAddress ?? ""),
        close: () => socket.destroy(),
        ...{ requests: 0, refusals: 0, incomplete: 0, since: now() },
        ...{ hasAsked: false, isKnown: false },
      };
      connections.set(key, connection);
      resting.add(connection);
      const own = byNetwork.get(connection.network) ?? new Set();
      byNetwork.set(connection.network, own.add(connection));
      socket.once("close", () => {
        if (connections.get(key) === connection) connections.delete(key);
        if (connection.isKnown) forgetKnown(connection.network);
        leaveStrangers(connection);
      });
      makeRoom(connection);
    },
    speaksHttp2(peer, close) {
      const connection = connections.get(keyOf(peer));
      if (connection) connection.close = close;
    },
    begin(asked, { headers, path, peer, cut, over }) {
      const connection = connections.get(keyOf(peer));
      const network = networkOf(options.addressOf(headers, peer.remoteAddress));
      const isStranger = headers.authorization === undefined && !connection?.isKnown;
      const mayEnd = connection && !connection.isKnown && !options.isBehindProxies;
      if (isStranger && options.requestsPerAddress > 0 && !probePaths.has(path)) {
        const isOfAddress = requests.take(network) > 0;
        if (isOfAddress || everybodys.take(allKey) > 0) {
          cutBy("too_many_requests");
          // Under a flood the end of a connection costs less than the refusal of its requests.
          const isEnough = !isOfAddress || (connection?.refusals ?? 0) >= refusalsMax;
          if (mayEnd && isEnough) hangUp(connection, "too_many_requests");
          else if (connection) connection.refusals += 1;
          return undefined;
        }
      }
      // A client with a token may begin with as many calls as its connection has streams.
      if (isStranger && mayEnd && connection.incomplete >= incompletePerConnectionMax) {
        hangUp(connection, "slow_stranger");
        return undefined;
      }
      const visit = new Visit(inside, { holder: network, connection, since: now(), cut });
      visits.set(asked, visit);
      incomplete.add(visit);
      if (connection) {
        connection.incomplete += 1;
        connection.requests += 1;
        connection.hasAsked = true;
        place(connection);
      }
      over.once("close", () => {
        visit.end();
        if (!connection) return;
        connection.requests -= 1;
        connection.since = now();
        place(connection);
      });
      return visit;
    },
    find: (asked) => visits.get(asked),
    isKnown: (peer) => connections.get(keyOf(peer))?.isKnown ?? false,
    hasKnownNeighbour: (peer) => knownOf.has(networkOf(peer.remoteAddress ?? "")),
    stats: () => ({
      connections: {
        known: connections.size - resting.size - busy.size,
        stranger: resting.size + busy.size,
      },
      bytes: { known: bytes.known.bytes, stranger: bytes.stranger.bytes },
    }),
    close: () => clearInterval(timer),
  };
}

function keyOf(peer: Peer): string {
  return `${peer.remoteAddress ?? ""} ${peer.remotePort ?? 0}`;
}
