/**
 * Strangers at the port: connections and requests that have shown no good token. Everybody is one at first.
 *
 * - A connection is a stranger's until a token that it carried has been verified. Strangers have a share of all connections,
 *   and an address a share of that; beyond either, the stranger's connection that has rested longest is closed, so that
 *   newcomers are heard. Connections that are known are never closed for it.
 * - A connection on which no request has come is closed after 10 s, and one of HTTP/2 that rests, after 75 s.
 * - A stranger's request has 10 s to come whole, a known one 60 s. What has come of all bodies is bounded together.
 * - Requests without a token are counted by address; too many of them are refused before anything is made of them.
 *
 * Where proxies are in front, a connection is theirs and not counted by address; requests are, by whom the proxy heard.
 */
import type { EventEmitter } from "node:events";
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import { createBuckets, networkOf } from "../../buckets.ts";
import type { CutReason } from "../../metrics.ts";
import { createBodyBudget, type Held } from "./body-budget.ts";

export type CrowdOptions = {
  /** Connections of strangers at most; and of one address among them. */
  connectionsMax: number;
  connectionsPerAddress: number;
  /** Requests per second of one address that show no token; 0: no limit. */
  requestsPerAddress: number;
  /** What has come of the bodies of known requests, at most. */
  knownBytesMax: number;
  /** Whether connections come from proxies, and who a request comes from. */
  isBehindProxies: boolean;
  addressOf: (headers: IncomingHttpHeaders, remoteAddress: string | undefined) => string;
  onCut?: (reason: CutReason) => void;
  now?: () => number;
};

/** Many times what strangers need: an Enroll has some hundred bytes, and is answered within milliseconds. */
const strangerBytesMaxTotal = 16 * 1024 * 1024;
/** Requests of strangers that are not whole; the one that came first is cut first. */
const strangerRequestsMax = 4_096;
const strangerRequestMs = 10_000;
const knownRequestMs = 60_000;
const firstRequestMs = 10_000;
/** Beyond the 60 s after which common load balancers let go. */
const restMs = 75_000;
const lookEveryMs = 1_000;
const addressesMax = 20_000;
/** After a rest an address may make so many requests at once: a page, a herd behind one address. */
const burstSeconds = 10;
/** A connection whose requests were refused so often is closed. */
const refusalsMax = 100;
/** A stranger's connection with so many requests that are not whole is closed: nobody needs them. */
const incompletePerConnectionMax = 32;
/** Requests per second without a token, of all addresses together: what they may cost everybody else. */
const strangerRequestsPerSecond = 1_000;
const strangerRequestsBurst = 5_000;
const allKey = "all";
/** What load balancers ask costs little, and is answered in any crowd. */
const probePaths = new Set(["/healthz", "/readyz", "/metrics"]);

type Connection = {
  close(): void;
  key: string;
  network: string;
  requests: number;
  hasAsked: boolean;
  since: number;
  refusals: number;
  /** Requests of which a part has come. */
  incomplete: number;
  isKnown: boolean;
};

/** A request, from its headers to its end. */
export class Visit implements Held {
  holder: string;
  isWhole = false;
  isKnown = false;
  /** Messages may come for as long as it lasts; there is no moment at which all has come. */
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

  /** At least so many bytes of it are in memory. May cut it. */
  holdAtLeast(bytes: number): void {
    if (bytes > this.#bytes) this.hold(bytes - this.#bytes);
  }

  /** Exactly so many bytes of it are in memory. */
  holdExactly(bytes: number): void {
    this.hold(bytes - this.#bytes);
  }

  /** So many bytes more (or fewer) of it are in memory. May cut it. */
  hold(bytes: number): void {
    if (bytes === 0) return;
    this.#bytes += bytes;
    this.#crowd.budgetOf(this).hold(this, bytes);
  }

  release(): void {
    this.#bytes = 0;
    this.#crowd.budgetOf(this).release(this);
  }

  /** All of it has come. */
  whole(): void {
    this.isWhole = true;
    this.#crowd.settled(this, this.#connection);
  }

  /** It is answered, or gone. */
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
  /** It speaks HTTP/2, and closes by `close`. */
  speaksHttp2(peer: Peer, close: () => void): void;
  /** Counts a request in until `over` has closed; undefined, and it is to be refused, if its address has made too many. */
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
  /** A good token came over it. */
  isKnown(peer: Peer): boolean;
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
  /** By address and port of the peer: TLS and HTTP/2 wrap a socket, and keep these. */
  const connections = new Map<string, Connection>();
  /** Those of strangers, the one that has rested longest first; `busy` have a request under way. */
  const resting = new Set<Connection>();
  const busy = new Set<Connection>();
  const byNetwork = new Map<string, Set<Connection>>();
  const visits = new WeakMap<object, Visit>();
  /** Requests that are not whole, the oldest first. */
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

  /** The one that has rested longest, of all or of one address; otherwise the one that came first. */
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
        if (requests.take(network) > 0 || everybodys.take(allKey) > 0) {
          cutBy("too_many_requests");
          if (mayEnd && ++connection.refusals > refusalsMax) hangUp(connection, "too_many_requests");
          return undefined;
        }
      }
      // A client that shows a token may begin with as many calls as its connection has streams.
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
