/** The connections that the port closes when crowded, and those that it never closes. */
import { EventEmitter } from "node:events";
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { expect, onTestFinished, test, vi } from "vitest";
import { type CrowdOptions, createCrowd } from "../../../../src/server/http/crowd/crowd.ts";
import { createTurns } from "../../../../src/server/http/crowd/turns.ts";
import { createBodyBudget, type Held } from "../../../../src/server/http/port/body-budget.ts";

type Peer = Socket & { destroyed: boolean };

function open(options: Partial<CrowdOptions> = {}) {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  let ms = 0;
  const cuts: string[] = [];
  const crowd = createCrowd({
    ...{ connectionsMax: 100, connectionsPerAddress: 100, requestsPerAddress: 0, knownBytesMax: 1_000 },
    isBehindProxies: false,
    addressOf: (headers, address) => String(headers["x-forwarded-for"] ?? address),
    onCut: (reason) => cuts.push(reason),
    now: () => ms,
    ...options,
  });
  onTestFinished(() => crowd.close());
  let port = 0;
  const dial = (remoteAddress: string): Peer => {
    const socket = Object.assign(new EventEmitter(), {
      ...{ remoteAddress, remotePort: ++port, destroyed: false },
      destroy() {
        if (socket.destroyed) return;
        socket.destroyed = true;
        socket.emit("close");
      },
    });
    crowd.enter(socket as unknown as Socket);
    return socket as unknown as Peer;
  };
  const ask = (peer: Peer, headers: Record<string, string> = {}, path = "/x") => {
    const request = new EventEmitter();
    let isCut = false;
    const visit = crowd.begin(request as unknown as IncomingMessage, {
      ...{ headers, path, peer, over: request },
      cut: () => {
        isCut = true;
        request.emit("close");
      },
    });
    return { visit, end: () => request.emit("close"), isCut: () => isCut };
  };
  const wait = (by: number) => {
    ms += by;
    vi.advanceTimersByTime(Math.max(by, 1_000));
  };
  return { crowd, cuts, dial, ask, wait };
}

test("beyond their share strangers give way to newcomers, the one that rested longest first; the known stay", () => {
  const { dial, ask, cuts } = open({ connectionsMax: 2 });
  const known = dial("192.0.2.1");
  ask(known).visit!.recognise("token");
  const busy = dial("192.0.2.2");
  ask(busy);
  const resting = dial("192.0.2.3");
  const newcomer = dial("192.0.2.4");
  expect([known, busy, resting, newcomer].map(({ destroyed }) => destroyed)).toEqual([
    false,
    false,
    true,
    false,
  ]);
  expect(cuts).toEqual(["crowded"]);
});

test("an address has a share of it, unless it is a proxy's", () => {
  const bare = open({ connectionsPerAddress: 2 });
  const [first, second] = ["192.0.2.1", "192.0.2.1"].map(bare.dial);
  const other = bare.dial("192.0.2.2");
  const third = bare.dial("192.0.2.1");
  expect([first, second, other, third].map((peer) => peer!.destroyed)).toEqual([true, false, false, false]);
  const proxied = open({ connectionsPerAddress: 1, isBehindProxies: true });
  expect(["192.0.2.1", "192.0.2.1"].map(proxied.dial).some(({ destroyed }) => destroyed)).toBe(false);
});

test("a connection without a request is closed after 10 s, a resting one after 75 s, a known one never", () => {
  const { dial, ask, wait } = open();
  const silent = dial("192.0.2.1");
  const resting = dial("192.0.2.2");
  ask(resting).end();
  const known = dial("192.0.2.3");
  const call = ask(known);
  call.visit!.recognise("token");
  call.end();
  wait(9_000);
  expect(silent.destroyed).toBe(false);
  wait(1_000);
  expect([silent.destroyed, resting.destroyed]).toEqual([true, false]);
  wait(65_000);
  expect([resting.destroyed, known.destroyed]).toEqual([true, false]);
});

test("a stranger's request has 10 s to come whole, a known one 60 s, and a stream has no end", () => {
  const { dial, ask, wait, cuts } = open();
  const stranger = ask(dial("192.0.2.1"));
  const known = ask(dial("192.0.2.2"));
  known.visit!.recognise("token");
  const stream = ask(dial("192.0.2.3"));
  stream.visit!.recognise("token");
  stream.visit!.isStream = true;
  const whole = ask(dial("192.0.2.4"));
  whole.visit!.whole();
  wait(10_000);
  expect([stranger, known, stream, whole].map((one) => one.isCut())).toEqual([true, false, false, false]);
  wait(50_000);
  expect([known, stream, whole].map((one) => one.isCut())).toEqual([true, false, false]);
  expect(cuts).toEqual(["slow_stranger", "slow_body", "rests"].slice(0, cuts.length));
});

test("a stranger's connection with 17 requests that are not whole is closed", () => {
  const { dial, ask } = open();
  const peer = dial("192.0.2.1");
  for (let count = 0; count < 16; count++) expect(ask(peer).visit).toBeDefined();
  expect(ask(peer).visit).toBeUndefined();
  expect(peer.destroyed).toBe(true);
});

test("requests without a token are counted by address; those with one, and probes, are not", () => {
  const { dial, ask } = open({ requestsPerAddress: 1 });
  const peer = dial("192.0.2.1");
  for (let count = 0; count < 10; count++) {
    const asked = ask(peer);
    expect(asked.visit).toBeDefined();
    asked.end();
  }
  expect(ask(peer).visit).toBeUndefined();
  expect(ask(peer, { authorization: "Bearer x" }).visit).toBeDefined();
  expect(ask(peer, {}, "/healthz").visit).toBeDefined();
  expect(ask(dial("192.0.2.2")).visit).toBeDefined();
});

test("an address that goes on asking too much loses its connection; under a flood of all, the first refusal ends it", () => {
  const { dial, ask } = open({ requestsPerAddress: 1 });
  const peer = dial("192.0.2.1");
  for (let count = 0; count < 10 + 8; count++) ask(peer).end();
  expect(peer.destroyed).toBe(false);
  ask(peer);
  expect(peer.destroyed).toBe(true);
  const crowd = open({ requestsPerAddress: 1_000 });
  const flooding = crowd.dial("192.0.2.1");
  for (let count = 0; count < 2_000; count++) crowd.ask(flooding).end();
  const late = crowd.dial("192.0.2.2");
  expect(crowd.ask(late).visit).toBeUndefined();
  expect(late.destroyed).toBe(true);
  const withToken = crowd.dial("192.0.2.3");
  expect(crowd.ask(withToken, { authorization: "Bearer x" }).visit).toBeDefined();
});

/** What becomes of a connection that speaks HTTP/2. */
function speak(crowd: ReturnType<typeof open>["crowd"], peer: Peer) {
  const known = vi.fn();
  return { streamsMax: crowd.speaksHttp2(peer, { close: () => peer.destroy(), known }), known };
}

/** Loses a connection for requests that never came whole. */
function misbehave({ dial, ask }: ReturnType<typeof open>, address: string): void {
  const peer = dial(address);
  for (let count = 0; count < 17; count++) ask(peer);
  expect(peer.destroyed).toBe(true);
}

test("an address that lost a connection for its requests gets few streams for a minute, until a token is verified", () => {
  const opened = open();
  const { crowd, dial, ask, wait } = opened;
  misbehave(opened, "192.0.2.1");
  const next = dial("192.0.2.1");
  expect([crowd.isSuspect(next), crowd.isSuspect(dial("192.0.2.2"))]).toEqual([true, false]);
  const { streamsMax, known } = speak(crowd, next);
  expect(streamsMax).toBe(8);
  ask(next, { authorization: "Bearer x" }).visit!.recognise("token");
  expect(known).toHaveBeenCalledOnce();
  expect(speak(crowd, dial("192.0.2.2")).streamsMax).toBeUndefined();
  wait(60_000);
  expect(speak(crowd, dial("192.0.2.1")).streamsMax).toBeUndefined();
});

test("a suspect's next connection is closed with its third request that is not whole; one with a token stays", () => {
  const opened = open();
  const { dial, ask } = opened;
  misbehave(opened, "192.0.2.1");
  const next = dial("192.0.2.1");
  for (let count = 0; count < 2; count++) ask(next);
  expect(next.destroyed).toBe(false);
  expect(ask(next, { authorization: "Bearer x" }).visit).toBeDefined();
  expect(next.destroyed).toBe(false);
  ask(next);
  expect(next.destroyed).toBe(true);
});

test("under a flood of all addresses every new connection gets few streams; a proxy's never does", () => {
  const { crowd, dial, ask } = open({ requestsPerAddress: 1_000 });
  const flooding = dial("192.0.2.1");
  expect(speak(crowd, flooding).streamsMax).toBeUndefined();
  for (let count = 0; count < 2_000; count++) ask(flooding).end();
  expect(speak(crowd, dial("192.0.2.2")).streamsMax).toBe(8);
  const proxied = open({ requestsPerAddress: 1_000, isBehindProxies: true });
  const proxy = proxied.dial("192.0.2.1");
  for (let count = 0; count < 2_100; count++) proxied.ask(proxy).end();
  expect(speak(proxied.crowd, proxied.dial("192.0.2.1")).streamsMax).toBeUndefined();
});

test("an address with a known connection goes before others, until that connection closes", () => {
  const { dial, ask, crowd } = open();
  const first = dial("192.0.2.1");
  const second = dial("192.0.2.1");
  expect(crowd.hasKnownNeighbour(second)).toBe(false);
  ask(first).visit!.recognise("token");
  expect(crowd.hasKnownNeighbour(second)).toBe(true);
  expect(crowd.hasKnownNeighbour(dial("192.0.2.2"))).toBe(false);
  first.destroy();
  expect(crowd.hasKnownNeighbour(second)).toBe(false);
});

test("names take turns, and the items of one name keep their order", () => {
  const turns = createTurns<string>();
  for (const item of ["a1", "a2", "a3", "b1", "c1", "c2"]) turns.add(item[0]!, item);
  const taken = Array.from({ length: 7 }, () => turns.take());
  expect(taken).toEqual(["a1", "b1", "c1", "a2", "c2", "a3", undefined]);
  expect(turns.size).toBe(0);
});

test("beyond the bytes that are held, whoever holds the most loses its oldest that is not whole", () => {
  const cut: string[] = [];
  const budget = createBodyBudget({ bytesMax: 100 });
  const make = (holder: string, name: string, isWhole = false): Held => ({
    holder,
    isWhole,
    cut: () => void cut.push(name),
  });
  const modest = make("a", "modest");
  const greedy = [make("b", "first"), make("b", "second"), make("b", "worked on", true)];
  budget.hold(modest, 20);
  budget.hold(greedy[2]!, 10);
  budget.hold(greedy[0]!, 30);
  budget.hold(greedy[1]!, 30);
  expect([cut, budget.bytes]).toEqual([[], 90]);
  budget.hold(greedy[1]!, 30);
  expect([cut, budget.bytes]).toEqual([["first"], 90]);
  budget.hold(modest, 5);
  budget.release(greedy[1]!);
  expect([cut, budget.bytes]).toEqual([["first"], 35]);
  budget.hold(make("c", "huge"), 1_000);
  expect([cut, budget.bytes]).toEqual([["first", "huge"], 35]);
});
