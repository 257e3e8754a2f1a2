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
 * - After such an end, a new connection of the address may open few streams until a token on the
 *   connection has been verified, and waits for the connections of other addresses (suspects.ts).
 *   Above the limit of all addresses together the same holds for every new connection.
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
import type { CutReason } from "../../../telemetry/metrics.ts";
import { createBodyBudget } from "../port/body-budget.ts";
import { createBuckets, networkOf } from "./buckets.ts";
import { Connections, type Peer } from "./crowd-connections.ts";
import { createSuspects } from "./suspects.ts";
import { type Connection, type CrowdInside, type Http2Peer, Visit } from "./visit.ts";

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
/** The same on a connection of a suspect address. */
const incompletePerSuspectMax = 2;
/** Maximum concurrent streams of a connection of a suspect address. */
const suspectStreamsMax = 8;
/**
 * Requests per second without a token, of all addresses together. Limits their cost for all other
 * clients.
 */
const strangerRequestsPerSecond = 1_000;
const strangerRequestsBurst = 2_000;
const allKey = "all";
/** The probes of load balancers cost little and are answered under any load. */
const probePaths = new Set(["/healthz", "/readyz", "/metrics"]);

/** A request of HTTP/1, or a stream of HTTP/2. */
type Asked = IncomingMessage | ServerHttp2Stream;

export type Crowd = {
  /** Counts a connection in until it closes. */
  enter(socket: Socket): void;
  /**
   * Notes that the peer speaks HTTP/2, closes by `close`, and may open any number of streams once
   * `known` was called. Returns the maximum number of streams until then; undefined for the port's
   * own limit.
   */
  speaksHttp2(peer: Peer, session: Http2Peer): number | undefined;
  /**
   * Counts a request in until `over` has closed, or without `over` until the caller ends the visit.
   * Undefined if the address has made too many requests; the caller then refuses the request.
   */
  begin<Of extends Asked>(
    asked: Of,
    options: {
      headers: IncomingHttpHeaders;
      path: string;
      peer: Peer;
      cut: (asked: Of) => void;
      over?: EventEmitter;
    },
  ): Visit | undefined;
  find(asked: Asked): Visit | undefined;
  /** Whether a valid token came over the connection. */
  isKnown(peer: Peer): boolean;
  /** Whether the peer's address has another connection over which a valid token came. */
  hasKnownNeighbour(peer: Peer): boolean;
  /** Whether the peer's address has lost a stranger's connection for its requests. */
  isSuspect(peer: Peer): boolean;
  stats(): CrowdStats;
  close(): void;
};

export type CrowdStats = {
  connections: { known: number; stranger: number };
  bytes: { known: number; stranger: number };
};

/** The allowances for requests without a token: of an address, and of all addresses together. */
function createAllowances(requestsPerAddress: number, now: () => number) {
  const everybodys = createBuckets({
    perMs: strangerRequestsPerSecond / 1_000,
    burst: strangerRequestsBurst,
    keysMax: 1,
    now,
  });
  const addresses = createBuckets({
    perMs: requestsPerAddress / 1_000,
    burst: requestsPerAddress * burstSeconds,
    keysMax: addressesMax,
    now,
  });
  return {
    /** Whether the allowance of all addresses is used up. */
    get areUsedUp(): boolean {
      return requestsPerAddress !== 0 && everybodys.peek(allKey) > 0;
    },
    /** Takes one request; returns the allowance that is used up, if one is. */
    take(network: string): "address" | "all" | undefined {
      if (requestsPerAddress === 0) return undefined;
      if (addresses.take(network) > 0) return "address";
      return everybodys.take(allKey) > 0 ? "all" : undefined;
    },
  };
}

/** The incomplete requests, and the bytes of the bodies. */
function createVisits(
  connections: Connections,
  options: { knownBytesMax: number; cutBy: (reason: CutReason) => void },
) {
  const { knownBytesMax, cutBy } = options;
  /** Incomplete requests, the oldest first. */
  const strangers = new Set<Visit>();
  const incomplete = new Set<Visit>();
  const bytes = {
    stranger: createBodyBudget({ bytesMax: strangerBytesMaxTotal, onCut: () => cutBy("stranger_bytes") }),
    known: createBodyBudget({ bytesMax: knownBytesMax, onCut: () => cutBy("body_bytes") }),
  };
  const inside: CrowdInside = {
    recognised(visit, connection) {
      strangers.delete(visit);
      if (connection) connections.recognise(connection);
    },
    strange(visit) {
      if (visit.isWhole) return;
      strangers.add(visit);
      if (strangers.size <= strangerRequestsMax) return;
      const [oldest] = strangers;
      if (!oldest) return;
      strangers.delete(oldest);
      cutBy("crowded");
      oldest.cut();
    },
    settled(visit, connection) {
      strangers.delete(visit);
      if (incomplete.delete(visit) && connection) connection.incomplete -= 1;
    },
    ended(visit, connection) {
      inside.settled(visit, connection);
      if (connection) connections.leave(connection);
    },
    budgetOf: (visit) => (visit.isKnown ? bytes.known : bytes.stranger),
  };
  return {
    bytes,
    incomplete: incomplete,
    begin(options: ConstructorParameters<typeof Visit>[1]): Visit {
      const visit = new Visit(inside, options);
      incomplete.add(visit);
      if (options.connection) options.connection.incomplete += 1;
      return visit;
    },
  };
}

type Parts = {
  connections: Connections;
  allowances: ReturnType<typeof createAllowances>;
  suspects: ReturnType<typeof createSuspects>;
  cutBy: (reason: CutReason) => void;
};

/** Judges strangers' requests. */
function createGate(options: CrowdOptions, { connections, allowances, suspects, cutBy }: Parts) {
  const isSuspect = (network: string) => !options.isBehindProxies && suspects.has(network);

  function hangUp(connection: Connection, reason: "too_many_requests" | "slow_stranger"): void {
    suspects.note(connection.network);
    connections.hangUp(connection, reason);
  }

  /** Whether a stranger's request is refused; may close the connection. */
  function isRefused(connection: Connection | undefined, network: string, path: string): boolean {
    const mayEnd = connection && !connection.isKnown && !options.isBehindProxies;
    const over = probePaths.has(path) ? undefined : allowances.take(network);
    if (over) {
      cutBy("too_many_requests");
      // Under a flood the end of a connection costs less than the refusal of its requests.
      const isEnough = over === "all" || (connection?.refusals ?? 0) >= refusalsMax;
      if (mayEnd && isEnough) hangUp(connection, "too_many_requests");
      else if (connection) connection.refusals += 1;
      return true;
    }
    // A client with a token may begin with as many calls as its connection has streams.
    if (!mayEnd) return false;
    const isOfSuspect = connection.incomplete >= incompletePerSuspectMax && isSuspect(connection.network);
    if (connection.incomplete < incompletePerConnectionMax && !isOfSuspect) return false;
    hangUp(connection, "slow_stranger");
    return true;
  }

  return { isSuspect, isRefused };
}

export function createCrowd(options: CrowdOptions): Crowd {
  const now = options.now ?? (() => performance.now());
  const cutBy = (reason: CutReason) => options.onCut?.(reason);
  const connections = new Connections({ ...options, cutBy, now });
  const visits = createVisits(connections, { ...options, cutBy });
  const allowances = createAllowances(options.requestsPerAddress, now);
  const suspects = createSuspects(now);
  const visitOf = new WeakMap<object, Visit>();
  const timer = setInterval(() => endLate(now(), connections, visits.incomplete, cutBy), lookEveryMs);
  timer.unref();

  const { isSuspect, isRefused } = createGate(options, { connections, allowances, suspects, cutBy });

  return {
    enter: (socket) => connections.enter(socket),
    speaksHttp2(peer, session) {
      const connection = connections.find(peer);
      if (!connection) return undefined;
      connection.peer = session;
      const isLimited = isSuspect(connection.network) || (!options.isBehindProxies && allowances.areUsedUp);
      return isLimited ? suspectStreamsMax : undefined;
    },
    begin(asked, { headers, path, peer, cut, over }) {
      const connection = connections.find(peer);
      const network = networkOf(options.addressOf(headers, peer.remoteAddress));
      const isStranger = headers.authorization === undefined && !connection?.isKnown;
      if (isStranger && isRefused(connection, network, path)) return undefined;
      const visit = visits.begin({ holder: network, connection, since: now(), asked, cut });
      visitOf.set(asked, visit);
      if (connection) connections.carry(connection);
      over?.on("close", () => visit.end());
      return visit;
    },
    find: (asked) => visitOf.get(asked),
    isKnown: (peer) => connections.find(peer)?.isKnown ?? false,
    hasKnownNeighbour: (peer) => connections.hasKnown(networkOf(peer.remoteAddress ?? "")),
    isSuspect: (peer) => isSuspect(networkOf(peer.remoteAddress ?? "")),
    stats: () => ({
      connections: connections.counts,
      bytes: { known: visits.bytes.known.bytes, stranger: visits.bytes.stranger.bytes },
    }),
    close: () => clearInterval(timer),
  };
}

/**
 * Cuts requests that are incomplete for too long, and closes connections that rest for too long.
 */
function endLate(
  at: number,
  connections: Connections,
  incomplete: ReadonlySet<Visit>,
  cutBy: (reason: CutReason) => void,
): void {
  for (const visit of incomplete) {
    if (at - visit.since < strangerRequestMs) break;
    const isLate = !visit.isKnown || (!visit.isStream && at - visit.since >= knownRequestMs);
    if (!isLate) continue;
    cutBy(visit.isKnown ? "slow_body" : "slow_stranger");
    visit.cut();
  }
  for (const connection of connections.resting) {
    const restsMs = at - connection.since;
    if (!connection.hasAsked && restsMs >= firstRequestMs) connections.hangUp(connection, "no_request");
    else if (restsMs >= restMs) connections.hangUp(connection, "rests");
  }
}
