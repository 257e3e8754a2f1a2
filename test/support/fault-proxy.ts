import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** What becomes of bytes in one direction. */
export type Fault =
  /** They arrive. */
  | "pass"
  /** They are swallowed: the sender believes that they arrived. */
  | "blackhole"
  /** They are not read: the sender's buffers fill up. Healing delivers them. */
  | "stall";

export interface Faults {
  /** From the client to the server. */
  up: Fault;
  /** From the server to the client. */
  down: Fault;
  /** Each chunk arrives this much later, in order. */
  latencyMs: number;
  /** Reads at most this much per second in each direction; 0: as it comes. */
  bytesPerSecond: number;
  /** New connections: `accept`, or `reset` at once, or `hang` (accepted by TCP, answered by nobody). */
  onConnect: "accept" | "reset" | "hang";
}

const none: Faults = { up: "pass", down: "pass", latencyMs: 0, bytesPerSecond: 0, onConnect: "accept" };

/** A TCP proxy whose faults are switched while connections are open. */
export interface FaultProxy {
  readonly url: string;
  readonly port: number;
  /** Connections that are open now. */
  readonly open: number;
  /** Connections that were ever made. */
  readonly connected: number;
  /** Changes the named faults, for open and new connections. */
  set(faults: Partial<Faults>): void;
  /** No faults any more. */
  heal(): void;
  /** Ends all open connections with a TCP reset, on both sides. */
  reset(): void;
  close(): Promise<void>;
}

export async function startFaultProxy(target: { port: number; host?: string }): Promise<FaultProxy> {
  let faults = { ...none };
  let connected = 0;
  const links = new Set<Link>();
  const server: Server = createServer({ allowHalfOpen: true }, (client) => {
    connected += 1;
    client.on("error", () => {});
    if (faults.onConnect === "reset") {
      client.resetAndDestroy();
      return;
    }
    const upstream =
      faults.onConnect === "hang"
        ? undefined
        : connect({ port: target.port, host: target.host ?? "127.0.0.1", allowHalfOpen: true });
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
    async close() {
      for (const link of [...links]) link.reset();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** One connection through the proxy. */
class Link {
  onClose: () => void = () => {};
  readonly #sockets: Socket[];
  readonly #faults: () => Faults;
  readonly #directions: { from: Socket; name: "up" | "down" }[] = [];

  constructor(client: Socket, upstream: Socket | undefined, faults: () => Faults) {
    this.#faults = faults;
    this.#sockets = upstream === undefined ? [client] : [client, upstream];
    for (const socket of this.#sockets) {
      socket.setNoDelay(true);
      socket.on("error", () => this.reset());
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
    for (const socket of this.#sockets) if (!socket.destroyed) socket.resetAndDestroy();
    this.onClose();
  }

  #pipe(from: Socket, to: Socket, name: "up" | "down"): void {
    this.#directions.push({ from, name });
    from.on("data", (chunk: Buffer) => {
      const { latencyMs, bytesPerSecond, [name]: fault } = this.#faults();
      if (fault === "blackhole") return;
      const forward = () => {
        if (!to.destroyed) to.write(chunk);
      };
      if (latencyMs > 0) setTimeout(forward, latencyMs);
      else forward();
      if (bytesPerSecond > 0) {
        from.pause();
        setTimeout(() => this.apply(), (chunk.length / bytesPerSecond) * 1000);
      }
    });
    from.on("end", () => {
      if (this.#faults()[name] === "pass") to.end();
    });
  }
}
