/**
 * Peers that answer a message in odd ways, on bare sockets: each try ends, and the status counts.
 */
import { type AddressInfo, createServer, type Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { createReach } from "../../../src/network/addresses.ts";
import { post } from "../../../src/network/outgoing.ts";
import { sentOf, troubleOf } from "../../../src/server/destinations/answer.ts";

/** A peer that does `behave` once a request begins to come. */
async function openPeer(behave: (socket: Socket) => void): Promise<URL> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.once("data", () => behave(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
}

/** The end of a delivery to the peer, whose try has `ms` milliseconds. */
async function sendTo(behave: (socket: Socket) => void, ms = 10_000) {
  const answer = post(await openPeer(behave), {
    headers: {},
    body: "{}",
    reach: createReach(() => true),
    signal: AbortSignal.timeout(ms),
    redirectsMax: 3,
  });
  return answer.then(sentOf, troubleOf);
}

const writes = (text: string) => (socket: Socket) => void socket.write(text);
const ends = (text: string) => (socket: Socket) => void socket.end(text);
/** Writes the text again and again, as fast as it is read. */
const floods = (head: string, text: string) => (socket: Socket) => {
  socket.write(head);
  const more = () => {
    for (let count = 0; count < 20 && !socket.destroyed; count++) socket.write(text);
    if (!socket.destroyed) socket.once("drain", more);
  };
  more();
};

test.concurrent.each([
  ["switches to another protocol", "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"],
  ["switches to nothing", "HTTP/1.1 101 x\r\n\r\n"],
])("a peer that %s has failed, and its socket is closed", async (_, head) => {
  const closed = Promise.withResolvers<void>();
  const sent = await sendTo((socket) => {
    socket.on("close", () => closed.resolve());
    socket.write(head);
  });
  expect(sent).toMatchObject({ outcome: "failed", error: expect.stringContaining("answered 101") });
  await closed.promise;
});

test.concurrent.each([
  ["whose length it does not reach", writes("HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\nok")],
  ["that is cut off", ends("HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\nok")],
  ["whose chunks do not end", writes("HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")],
  ["of broken chunks", writes("HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")],
  ["without end", floods("HTTP/1.1 200 x\r\n\r\n", "a".repeat(65_536))],
  ["under a status that has none", ends("HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\nhello")],
  [
    "of trailers without end",
    floods("HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "a: b\r\n".repeat(500)),
  ],
])("a peer that took the message and adds a text %s has taken it", async (_, behave) => {
  expect(await sendTo(behave)).toMatchObject({ outcome: "delivered" });
});

test.concurrent("a peer that only promises an answer is left soon", async () => {
  const startedAt = performance.now();
  const sent = await sendTo(floods("", "HTTP/1.1 103 x\r\nLink: </a>\r\n\r\n".repeat(100)), 30_000);
  expect(sent).toMatchObject({ outcome: "failed", error: expect.stringContaining("1xx again and again") });
  expect(performance.now() - startedAt).toBeLessThan(15_000);
});

test.concurrent.each([
  ["nothing", () => {}, "did not answer in time"],
  ["HTTP/2", writes("\0\0\0\x04\0\0\0\0\0"), "no HTTP/1.1"],
  ["SSH", writes("SSH-2.0-OpenSSH\r\n"), "no HTTP/1.1"],
  ["headers without end", floods("HTTP/1.1 200 x\r\n", "a: b\r\n".repeat(500)), "Header overflow"],
])("of a peer that answers %s the delivery says so", async (_, behave, error) => {
  expect(await sendTo(behave, 1_000)).toMatchObject({
    outcome: "failed",
    status: 0,
    error: expect.stringContaining(error),
  });
});

test("an error's text is one line without control characters, and a compressed one is left out", async () => {
  expect(await sendTo(ends("HTTP/1.1 500 x\r\nContent-Length: 11\r\n\r\na\0b\x1b[2Jc\r\nd"))).toMatchObject({
    error: "answered 500: a b [2Jc d",
  });
  expect(
    await sendTo(ends("HTTP/1.1 500 x\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc")),
  ).toMatchObject({ error: "answered 500" });
});

test.concurrent("a peer that speaks no TLS is told so in words", async () => {
  const plain = await openPeer(ends("HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n"));
  const sent = await post(new URL(plain.href.replace("http:", "https:")), {
    headers: {},
    body: "{}",
    reach: createReach(() => true),
    signal: AbortSignal.timeout(10_000),
    redirectsMax: 3,
  }).then(sentOf, troubleOf);
  expect(sent).toMatchObject({ error: "speaks no TLS that we know (wrong version number)" });
});
