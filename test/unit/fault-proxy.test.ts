import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { resetSocket, startFaultProxy } from "../support/fault-proxy.ts";

/** `once` would reject with the preceding error. */
const closed = (socket: Socket) => new Promise<void>((resolve) => socket.once("close", () => resolve()));

/** A server that records its input, and a proxy in front. */
async function startPair() {
  const accepted: { socket: Socket; text: () => string; ended: Promise<unknown> }[] = [];
  const server = createServer((socket) => {
    let text = "";
    socket.on("data", (data) => {
      text += data;
    });
    socket.on("error", () => {});
    accepted.push({ socket, text: () => text, ended: closed(socket) });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const proxy = await startFaultProxy(() => ({ port: (server.address() as AddressInfo).port }));
  onTestFinished(async () => {
    await proxy.close();
    server.close();
  });
  const dial = async () => {
    const socket = connect({ port: proxy.port, host: "127.0.0.1" });
    socket.on("error", () => {});
    onTestFinished(() => void socket.destroy());
    const before = accepted.length;
    await once(socket, "connect");
    await expect.poll(() => accepted.length).toBeGreaterThan(before);
    return socket;
  };
  return { proxy, accepted, dial };
}

test("what is late arrives in order, although its sender has gone and the fault is healed", async () => {
  const { proxy, accepted, dial } = await startPair();
  const client = await dial();
  proxy.set({ lateUpMs: 500 });
  client.write("first ");
  await expect.poll(() => proxy.late).toBe(1);
  proxy.heal();
  client.end("second");
  await accepted[0]!.ended;
  expect(accepted[0]!.text()).toBe("first second");
});

test("of a severed connection one side is told, and the other stays open", async () => {
  const { proxy, accepted, dial } = await startPair();
  const client = await dial();
  proxy.sever("client");
  await closed(client);
  expect(accepted[0]!.socket.destroyed).toBe(false);
  const other = await dial();
  proxy.sever("server");
  await accepted[1]!.ended;
  expect(other.destroyed).toBe(false);
});

test("a reset reaches the peer of a connection whose own end is on its way", async () => {
  // After the end of what it reads, a peer notices a reset only when it writes.
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.resume().on("error", () => {});
    socket.once("end", () => {
      const writing = setInterval(() => socket.write("more"), 5);
      socket.once("close", () => clearInterval(writing));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  const errors: Error[] = [];
  socket.on("error", (error) => errors.push(error));
  await once(socket, "connect");
  const open = () => new Promise<number>((resolve) => server.getConnections((_, count) => resolve(count)));
  await expect.poll(open).toBe(1);
  socket.end();
  resetSocket(socket);
  await expect.poll(open).toBe(0);
  expect(errors).toEqual([]);
});
