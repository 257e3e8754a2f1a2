import type { Socket } from "node:net";
import type { CutReason } from "../../../telemetry/metrics.ts";
import { networkOf } from "./buckets.ts";
import type { Connection } from "./visit.ts";

export type Peer = { remoteAddress?: string | undefined; remotePort?: number | undefined };

type ConnectionOptions = {
  /** Maximum number of strangers' connections, in all and of one address. */
  connectionsMax: number;
  connectionsPerAddress: number;
  /** Connections are then not counted by address. */
  isBehindProxies: boolean;
  cutBy: (reason: CutReason) => void;
  now: () => number;
};

/**
 * The port's connections. Strangers' connections are ordered by idle time, so that the connection
 * with the longest idle time makes room for a new connection.
 */
export class Connections {
  readonly #options: ConnectionOptions;
  /** By the peer's address and port: TLS and HTTP/2 wrap the socket and keep both. */
  readonly #all = new Map<string, Connection>();
  /**
   * Strangers' connections, the longest idle first; `busy` connections have a request under way.
   */
  readonly #resting = new Set<Connection>();
  readonly #busy = new Set<Connection>();
  readonly #byNetwork = new Map<string, Set<Connection>>();
  readonly #known = countByNetwork();

  constructor(options: ConnectionOptions) {
    this.#options = options;
  }

  get resting(): ReadonlySet<Connection> {
    return this.#resting;
  }

  get counts(): { known: number; stranger: number } {
    const stranger = this.#resting.size + this.#busy.size;
    return { known: this.#all.size - stranger, stranger };
  }

  find(peer: Peer): Connection | undefined {
    return this.#all.get(keyOf(peer));
  }

  hasKnown(network: string): boolean {
    return this.#known.has(network);
  }

  /** Counts a connection in until it closes. */
  enter(socket: Socket): void {
    const connection = connectionOf(socket, this.#options.now());
    const { key, network } = connection;
    this.#all.set(key, connection);
    this.#resting.add(connection);
    const own = this.#byNetwork.get(network) ?? new Set();
    this.#byNetwork.set(network, own.add(connection));
    socket.on("close", () => {
      if (this.#all.get(key) === connection) this.#all.delete(key);
      if (connection.isKnown) this.#known.subtract(network);
      this.#leaveStrangers(connection);
    });
    this.#makeRoom(own);
  }

  /** Counts a request of the connection until `leave`. */
  carry(connection: Connection): void {
    connection.requests += 1;
    connection.hasAsked = true;
    this.#place(connection);
  }

  leave(connection: Connection): void {
    connection.requests -= 1;
    connection.since = this.#options.now();
    this.#place(connection);
  }

  recognise(connection: Connection): void {
    if (connection.isKnown) return;
    this.#leaveStrangers(connection);
    connection.isKnown = true;
    if (this.#all.has(connection.key)) this.#known.add(connection.network);
    connection.peer.known();
  }

  hangUp(connection: Connection, reason: CutReason): void {
    this.#leaveStrangers(connection);
    this.#options.cutBy(reason);
    connection.peer.close();
  }

  #makeRoom(own: ReadonlySet<Connection>): void {
    const { isBehindProxies, connectionsPerAddress, connectionsMax } = this.#options;
    if (!isBehindProxies && own.size > connectionsPerAddress) {
      const oldest = longestIdle(own);
      if (oldest) this.hangUp(oldest, "address_crowded");
    }
    if (this.counts.stranger > connectionsMax) {
      const [oldest] = this.#resting.size > 0 ? this.#resting : this.#busy;
      if (oldest) this.hangUp(oldest, "crowded");
    }
  }

  /** Orders a stranger's connection anew after a request began or ended. */
  #place(connection: Connection): void {
    if (connection.isKnown || !this.#all.has(connection.key)) return;
    this.#resting.delete(connection);
    this.#busy.delete(connection);
    (connection.requests > 0 ? this.#busy : this.#resting).add(connection);
  }

  #leaveStrangers(connection: Connection): void {
    this.#resting.delete(connection);
    this.#busy.delete(connection);
    const own = this.#byNetwork.get(connection.network);
    own?.delete(connection);
    if (own?.size === 0) this.#byNetwork.delete(connection.network);
  }
}

function connectionOf(socket: Socket, since: number): Connection {
  return {
    key: keyOf(socket),
    network: networkOf(socket.remoteAddress ?? ""),
    peer: { close: () => void socket.destroy(), known: () => {} },
    ...{ requests: 0, refusals: 0, incomplete: 0, since },
    ...{ hasAsked: false, isKnown: false },
  };
}

/**
 * The connection with the longest idle time; the oldest connection if none is idle. `among` is in
 * the order of arrival.
 */
function longestIdle(among: Iterable<Connection>): Connection | undefined {
  let oldest: Connection | undefined;
  for (const connection of among) {
    oldest ??= connection;
    if (connection.requests === 0) return connection;
  }
  return oldest;
}

function countByNetwork() {
  const counts = new Map<string, number>();
  return {
    has: (network: string) => counts.has(network),
    add: (network: string) => counts.set(network, (counts.get(network) ?? 0) + 1),
    subtract(network: string): void {
      const left = (counts.get(network) ?? 0) - 1;
      if (left > 0) counts.set(network, left);
      else counts.delete(network);
    },
  };
}

function keyOf(peer: Peer): string {
  return `${peer.remoteAddress ?? ""} ${peer.remotePort ?? 0}`;
}
