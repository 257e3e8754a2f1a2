import { connect, createServer, type Socket } from "node:net";
import { freePort } from "./programs.ts";

/**
 * A gate between two processes, which a test closes: open connections stall, and new connections
 * get no answer.
 */
export type Gate = { port: number; close(): void; open(): void; end(): void };

export async function openGate(target: number): Promise<Gate> {
  const pairs = new Set<[Socket, Socket]>();
  let isOpen = true;
  const server = createServer((client) => {
    // A cut network gives no answer: the caller waits until its own timeout.
    const upstream = connect(target, "127.0.0.1");
    const pair: [Socket, Socket] = [client, upstream];
    pairs.add(pair);
    const both = [
      [client, upstream],
      [upstream, client],
    ] as const;
    for (const [from, to] of both) {
      from.on("error", () => {});
      from.on("data", (data) => {
        if (isOpen) to.write(data);
      });
      from.on("close", () => {
        pairs.delete(pair);
        to.destroy();
      });
    }
  });
  const port = await freePort();
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return {
    port,
    close: () => {
      isOpen = false;
    },
    open: () => {
      isOpen = true;
      // Open connections lost bytes in the middle.
      for (const pair of pairs) for (const socket of pair) socket.destroy();
    },
    end: () => {
      for (const pair of pairs) for (const socket of pair) socket.destroy();
      server.close();
    },
  };
}
