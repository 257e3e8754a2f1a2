import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** The fault applied to bytes in one direction. */
export type Fault =
  /** They arrive. */
  | "pass"
  /** Bytes are dropped: the sender believes that they arrived. */
  | "blackhole"
  /** They are not read: the sender's buffers fill up. Healing delivers them. */
  | "stall";

export interface Faults {
  /** From the client to the server. */
  up: Fault;
  /** From the server to the client. */
  down: Fault;
  /** Delay of each chunk, and of the end after the last chunk, in order. */
  latencyMs: number;
  /**
   * Delay in the direction of the server alone; delayed bytes arrive even if the client has gone.
   */
  lateUpMs: number;
  /** Maximum bytes read per second in each direction; 0: no limit. */
  bytesPerSecond: number;
  /**
   * New connections: `accept`, or `reset` at once, or `hang` (accepted by TCP, without an answer).
   */
  onConnect: "accept" | "reset" | "hang";
}

const none: Faults = {
  up: "pass",
  down: "pass",
  latencyMs: 0,
  lateUpMs: 0,
  bytesPerSecond: 0,
  onConnect: "accept",
};

/** A TCP proxy whose faults are switched while connections are open. */
export interface FaultProxy {
  readonly url: string;
  readonly port: number;
  /** The number of open connections. */
  readonly open: number;
  /** The number of connections ever made. */
  readonly connected: number;
  /** The number of connections with delayed bytes for the server. */
  readonly late: number;
  /** Changes the named faults, for open and new connections. */
  set(faults: Partial<Faults>): void;
  /** No faults any more. */
  heal(): void;
  /** Ends all open connections with a TCP reset, on both sides. */
  reset(): void;
  /**
   * Ends one side of all open connections with a TCP reset; the other side stays open and gets no
   * notice.
   */
  sever(side: "client" | "server"): void;
  close(): Promise<void>;
}

export type Target = { port: number; host?: string };

/**
 * `target`: the destination of connections; determined for each connection, and a connection
 * without a target is reset.
 */
export async function startFaultProxy(target: Target | (() => Target | undefined)): Promise<FaultProxy> {
  let faults = { ...none };
  let connected = 0;
  const links = new Set<Link>();
  const server: Server = createServer({ allowHalfOpen: true }, (client) => {
    connected += 1;
    client.on("error", () => {});
    const to = typeof target === "function" ? target() : target;
    if (faults.onConnect === "reset" || !to) {
      resetSocket(client);
      return;
    }
    const upstream =
      faults.onConnect === "hang"
        ? undefined
        : connect({ port: to.port, host: to.host ?? "127.0.0.1", allowHalfOpen: true });
    const link = new Link(client, upstream, () => faults);
    links.add(link);
    link.onClose = () => links.delete(link);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const apply = () => {
    for (const link of links) link.apply();
  };
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    get open() {
      return links.size;
    },
    get connected() {
      return connected;
    },
    get late() {
      return [...links].filter((link) => link.isLate).length;
    },
    set(changes) {
      faults = { ...faults, ...changes };
      apply();
    },
    heal() {
      faults = { ...none };
      apply();
    },
    reset() {
      for (const link of [...links]) link.reset();
    },
    sever(side) {
      for (const link of links) link.sever(side);
    },
    async close() {
      for (const link of [...links]) link.reset();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/**
 * Ends a connection with a TCP reset. While the end of its own direction is on its way, libuv
 * refuses a reset (EINVAL), and Node then forgets the socket without closing it: what the peer
 * still sends would be taken for ever. So the reset follows that end.
 */
export function resetSocket(socket: Socket): void {
  if (socket.destroyed) return;
  const isEnding = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0;
  if (isEnding) socket.once("finish", () => socket.resetAndDestroy());
  else socket.resetAndDestroy();
}

/** One connection through the proxy. */
class Link {
  onClose: () => void = () => {};
  readonly #sockets: Socket[];
  readonly #faults: () => Faults;
  readonly #directions: { from: Socket; name: "up" | "down" }[] = [];
  /** Whether delayed bytes for the server exist, which may outlive their sender. */
  isLate = false;

  constructor(client: Socket, upstream: Socket | undefined, faults: () => Faults) {
    this.#faults = faults;
    this.#sockets = upstream === undefined ? [client] : [client, upstream];
    for (const socket of this.#sockets) {
      socket.setNoDelay(true);
      socket.on("error", () => {
        if (socket === client && this.isLate) return;
        this.reset();
      });
      socket.on("close", () => {
        if (this.#sockets.every((other) => other.destroyed)) this.onClose();
      });
    }
    if (upstream === undefined) {
      client.resume();
      return;
    }
    this.#pipe(client, upstream, "up");
    this.#pipe(upstream, client, "down");
    this.apply();
  }

  apply(): void {
    for (const { from, name } of this.#directions) {
      if (this.#faults()[name] === "stall") from.pause();
      else from.resume();
    }
  }

  reset(): void {
    for (const socket of this.#sockets) resetSocket(socket);
    this.onClose();
  }

  sever(side: "client" | "server"): void {
    const socket = this.#sockets[side === "client" ? 0 : 1];
    if (socket) resetSocket(socket);
  }

  #pipe(from: Socket, to: Socket, name: "up" | "down"): void {
    this.#directions.push({ from, name });
    const lane = new Lane((isOnItsWay) => {
      if (name === "up") this.isLate = isOnItsWay;
    });
    const delayMs = () => {
      const { latencyMs, lateUpMs } = this.#faults();
      return latencyMs + (name === "up" ? lateUpMs : 0);
    };
    from.on("data", (chunk: Buffer) => {
      const { bytesPerSecond, [name]: fault } = this.#faults();
      if (fault === "blackhole") return;
      lane.send(delayMs(), () => {
        if (!to.destroyed) to.write(chunk);
      });
      if (bytesPerSecond > 0) {
        from.pause();
        setTimeout(() => this.apply(), (chunk.length / bytesPerSecond) * 1000);
      }
    });
    from.on("end", () => {
      lane.send(delayMs(), () => {
        if (this.#faults()[name] === "pass" && !to.destroyed) to.end();
      });
    });
    // The sender vanished while bytes were delayed: the receiver gets the bytes, and then the end.
    from.on("close", () => {
      if (from.readableEnded || !this.isLate || name === "down") return;
      lane.send(delayMs(), () => to.destroy());
    });
  }
}

/** Delivers chunks in order, none before its time. */
class Lane {
  readonly #onWaiting: (isOnItsWay: boolean) => void;
  readonly #waiting: (() => void)[] = [];
  #lastAt = 0;

  constructor(onWaiting: (isOnItsWay: boolean) => void) {
    this.#onWaiting = onWaiting;
  }

  send(delayMs: number, deliver: () => void): void {
    if (delayMs === 0 && this.#waiting.length === 0) {
      deliver();
      return;
    }
    const now = performance.now();
    this.#lastAt = Math.max(this.#lastAt, now + delayMs);
    this.#waiting.push(deliver);
    this.#onWaiting(true);
    setTimeout(() => {
      // Whichever timer fires first, the oldest chunk goes first.
      this.#waiting.shift()!();
      if (this.#waiting.length === 0) this.#onWaiting(false);
    }, this.#lastAt - now);
  }
}
