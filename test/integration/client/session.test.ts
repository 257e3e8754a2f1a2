import { status } from "@grpc/grpc-js";
import { expect, test, vi } from "vitest";
import {
  CompletionVerdict,
  DrainReason,
  HeldAttemptState,
  HeldVerdict,
  RejectReason,
} from "#gen/pinion/v1/device_pb.js";
import { startFaultProxy } from "../../support/fault-proxy.ts";
import { makeStateDir, manualHandler, startDevice, startPeer, until } from "./harness.ts";

test("a device says hello first, and is served", async () => {
  const peer = await startPeer();
  const { events } = startDevice(peer.url, { label: "my laptop", maxConcurrency: 3, capabilities: ["x"] });
  const session = await peer.session();
  expect(session.hello).toMatchObject({
    installId: "install-0001",
    label: "my laptop",
    agentKinds: ["test"],
    maxConcurrency: 3,
    held: [],
  });
  expect(session.received[0]?.message.case).toBe("hello");
  const connected = await events.next("connected");
  expect(connected.heartbeatMs).toBe(100);
  expect(peer.tokensSeen).toEqual(["Bearer pin_dev_test"]);
});

test("an assignment is accepted, done, delivered and acknowledged", async () => {
  const peer = await startPeer();
  const { events, device } = startDevice(peer.url, {
    onAssignment: async (assignment, { output }) => {
      output("stdout", "working…");
      return { outcome: "completed", output: `did: ${assignment.watcher?.prompt}`, exitCode: 0 };
    },
  });
  const session = await peer.session();
  const { attemptToken, workId } = session.assign({ prompt: "sweep the floor" });
  expect(await session.next("accept")).toMatchObject({ workId, attemptToken });
  const completion = await session.next("complete");
  expect(completion).toMatchObject({ workId, attemptToken, output: "did: sweep the floor", exitCode: 0 });
  const acknowledged = await events.next("acknowledged");
  expect(acknowledged).toMatchObject({ verdict: "stored", watcher: "daily" });
  expect(acknowledged.storeMs).toBeGreaterThan(0);
  expect(session.all("output")).toMatchObject([{ sequence: 1n }]);
  expect(device.unacknowledged).toBe(0);
  const received = await events.next("assignment");
  expect(received.atMs - (received.firedAtMs ?? 0)).toBeLessThan(10_000);
  expect(peer.violations).toEqual([]);
});

test("heartbeats list the attempts in progress, at the server's interval", async () => {
  const peer = await startPeer({ heartbeatMs: 30 });
  const { onAssignment, calls } = manualHandler();
  startDevice(peer.url, { onAssignment });
  const session = await peer.session();
  expect((await session.next("heartbeat")).sequence).toBe(1n);
  const { attemptToken } = session.assign();
  await session.next("heartbeat", ({ attempts }) =>
    attempts.some((ref) => ref.attemptToken === attemptToken),
  );
  calls[0]?.finish({ outcome: "completed" });
  await session.next("complete");
  const before = session.all("heartbeat").length;
  await session.next("heartbeat", ({ sequence, attempts }) => sequence > before && attempts.length === 0);
  expect(session.all("heartbeat").map(({ sequence }) => Number(sequence))).toEqual(
    session.all("heartbeat").map((_, index) => index + 1),
  );
});

test("a copy of an attempt starts nothing, before and after its end", async () => {
  const peer = await startPeer();
  const { onAssignment, calls } = manualHandler();
  const { events } = startDevice(peer.url, { onAssignment, maxConcurrency: 4 });
  const session = await peer.session();
  const assignment = session.assign();
  session.assign(assignment);
  await events.next("duplicate");
  await until(() => calls.length === 1, "the handler was called");
  calls[0]?.finish({ outcome: "completed" });
  await events.next("acknowledged");
  session.assign(assignment);
  await events.next("duplicate", () => true, 2);
  expect(calls).toHaveLength(1);
  expect(session.all("accept")).toHaveLength(1);
});

test("an assignment beyond the slots is rejected as busy, and a freed slot takes the next one", async () => {
  const peer = await startPeer();
  const { onAssignment, calls } = manualHandler();
  startDevice(peer.url, { onAssignment, maxConcurrency: 1 });
  const session = await peer.session();
  session.assign();
  await session.next("accept");
  const second = session.assign();
  expect(await session.next("reject")).toMatchObject({
    attemptToken: second.attemptToken,
    reason: RejectReason.BUSY,
  });
  calls[0]?.finish({ outcome: "completed" });
  await session.next("complete");
  const third = session.assign();
  expect((await session.next("accept")).attemptToken).toBe(third.attemptToken);
});

test("what the server has cancelled takes no slot while it winds down, as many as there are slots", async () => {
  const peer = await startPeer();
  const settle = Promise.withResolvers<void>();
  const aborted: string[] = [];
  startDevice(peer.url, {
    maxConcurrency: 1,
    onAssignment: async ({ workId }, { signal }) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      aborted.push(workId);
      await settle.promise;
      return { outcome: "cancelled" };
    },
  });
  const session = await peer.session();
  const first = session.assign();
  await session.next("accept");
  session.cancel(first, "not yours any more");
  const second = session.assign();
  const accepted = session.next("accept", ({ attemptToken }) => attemptToken === second.attemptToken);
  const rejected = session.next("reject").then(({ message }) => message);
  expect(await Promise.race([accepted, rejected])).toMatchObject({ attemptToken: second.attemptToken });
  session.cancel(second, "not yours any more");
  const third = session.assign();
  expect(await rejected).toContain("slot");
  await until(() => aborted.length === 2, "both are told to stop");
  settle.resolve();
  await session.next("cancelled", ({ attemptToken }) => attemptToken === first.attemptToken);
  await session.next("cancelled", ({ attemptToken }) => attemptToken === second.attemptToken);
  session.assign(third);
  expect((await session.next("accept")).attemptToken).toBe(third.attemptToken);
});

test("a rejected attempt may be offered again later under the same token", async () => {
  const peer = await startPeer();
  let isOpen = false;
  const { onAssignment } = manualHandler();
  startDevice(peer.url, {
    onAssignment,
    admit: () => (isOpen ? undefined : { reason: "busy", message: "come back" }),
  });
  const session = await peer.session();
  const assignment = session.assign();
  await session.next("reject");
  isOpen = true;
  session.assign(assignment);
  await session.next("accept");
});

test("a handler that throws is reported as a failure with its message", async () => {
  const peer = await startPeer();
  startDevice(peer.url, { onAssignment: () => Promise.reject(new Error("the disk is on fire")) });
  const session = await peer.session();
  session.assign();
  expect((await session.next("complete")).reason).toBe("the disk is on fire");
});

test("a cancel aborts the handler and is answered once it has settled, not by a completion", async () => {
  const peer = await startPeer();
  const settle = Promise.withResolvers<void>();
  const { events } = startDevice(peer.url, {
    onAssignment: async (_assignment, { signal }) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      await settle.promise;
      return { outcome: "failed", reason: String(signal.reason) };
    },
  });
  const session = await peer.session();
  const assignment = session.assign();
  await session.next("accept");
  session.cancel(assignment);
  await events.next("cancel");
  expect(session.all("cancelled")).toHaveLength(0);
  settle.resolve();
  expect((await session.next("cancelled")).attemptToken).toBe(assignment.attemptToken);
  expect(session.all("complete")).toHaveLength(0);
});

test("a result that is complete when its cancel arrives is delivered, not thrown away", async () => {
  const peer = await startPeer();
  const settle = Promise.withResolvers<void>();
  const { events } = startDevice(peer.url, {
    onAssignment: async () => {
      await settle.promise;
      return { outcome: "completed", output: "the answer" };
    },
  });
  const session = await peer.session();
  const assignment = session.assign();
  await session.next("accept");
  session.cancel(assignment);
  await events.next("cancel");
  settle.resolve();
  const { attemptToken } = assignment;
  expect(await session.next("complete")).toMatchObject({ attemptToken, output: "the answer" });
  expect(session.all("cancelled")).toHaveLength(0);
});

test("a cancel of an attempt that is not here is answered at once", async () => {
  const peer = await startPeer();
  startDevice(peer.url);
  const session = await peer.session();
  const gone = {
    workId: "0190b6a0-0000-7000-8000-00000000000a",
    attemptToken: "0190b6a0-0000-7000-8000-00000000000b",
  };
  session.cancel(gone);
  expect(await session.next("cancelled")).toMatchObject(gone);
});

test("a daemon that comes back names its last session, and one that begins names none", async () => {
  const peer = await startPeer();
  const proxy = await startFaultProxy(peer);
  const fingerprint = { machineHash: "m", bootHash: "b", hostName: "laptop", arch: "x64", daemonId: "d" };
  const machine = { ...fingerprint, startedAt: performance.now() };
  const { events } = startDevice(proxy.url, { machine });
  expect((await peer.session()).hello.machine).toMatchObject({ daemonId: "d", sessionEpoch: 0n });
  const { sessionEpoch } = await events.next("connected");
  expect(sessionEpoch).toBeGreaterThan(0n);
  proxy.reset();
  expect((await peer.session()).hello.machine).toMatchObject({ daemonId: "d", sessionEpoch });
});

test("a broken stream is dialled again, and what runs goes on", async () => {
  const peer = await startPeer();
  const proxy = await startFaultProxy(peer);
  const { onAssignment, calls } = manualHandler();
  const { events } = startDevice(proxy.url, { onAssignment });
  const first = await peer.session();
  const assignment = first.assign();
  await first.next("accept");
  proxy.reset();
  const second = await peer.session();
  expect(second.hello.held).toMatchObject([
    { attemptToken: assignment.attemptToken, state: HeldAttemptState.RUNNING },
  ]);
  expect(calls[0]?.signal.aborted).toBe(false);
  calls[0]?.finish({ outcome: "completed", output: "after all" });
  expect((await second.next("complete")).output).toBe("after all");
  await events.next("acknowledged");
  expect(calls).toHaveLength(1);
  await proxy.close();
});

test("an attempt that ends while there is no stream is held as finished, and delivered once", async () => {
  const peer = await startPeer();
  const proxy = await startFaultProxy(peer);
  const { onAssignment, calls } = manualHandler();
  const { events } = startDevice(proxy.url, { onAssignment });
  const first = await peer.session();
  const { attemptToken } = first.assign();
  await first.next("accept");
  proxy.set({ onConnect: "reset" });
  proxy.reset();
  await events.next("disconnected");
  calls[0]?.finish({ outcome: "completed" });
  await events.next("finished");
  await events.next("retrying", () => true, 3);
  proxy.heal();
  const second = await peer.session();
  expect(second.hello.held).toMatchObject([{ attemptToken, state: HeldAttemptState.FINISHED }]);
  expect(await events.next("acknowledged")).toMatchObject({ verdict: "stored" });
  expect(peer.stored.get(attemptToken)?.times).toBe(1);
  await proxy.close();
});

test("a silent network is noticed by the watchdog within the TTL", async () => {
  const peer = await startPeer({ heartbeatMs: 50, ttlMs: 300 });
  const proxy = await startFaultProxy(peer);
  const { events } = startDevice(proxy.url);
  await peer.session();
  const connected = await events.next("connected");
  proxy.set({ up: "blackhole", down: "blackhole" });
  const disconnected = await events.next("disconnected");
  expect(disconnected.reason).toContain("silent");
  expect(disconnected.atMs - connected.atMs).toBeLessThan(10_000);
  proxy.heal();
  await peer.session();
  await proxy.close();
});

test("a server that takes connections and says nothing is given up after the deadline, and dialled afresh", async () => {
  const peer = await startPeer();
  const proxy = await startFaultProxy(peer);
  proxy.set({ onConnect: "hang" });
  const { events } = startDevice(proxy.url, { timing: { dialDeadlineMs: 100 } });
  expect((await events.next("retrying")).reason).toContain("no connection within 100 ms");
  proxy.heal();
  await peer.session();
  await proxy.close();
});

test("a stream that is never welcomed is given up after the deadline", async () => {
  const peer = await startPeer();
  peer.welcomes = false;
  const { events } = startDevice(peer.url, { timing: { welcomeDeadlineMs: 100 } });
  expect((await events.next("retrying")).reason).toContain("no welcome within 100 ms");
  peer.welcomes = true;
  await events.next("connected");
});

test("a server that accepts and drops is dialled ever more slowly", async () => {
  const peer = await startPeer();
  const { events } = startDevice(peer.url, { timing: { backoffBaseMs: 4, backoffCapMs: 1_000 } });
  for (let round = 0; round < 5; round++) (await peer.session()).end();
  const last = await events.next("retrying", () => true, 5);
  expect(last.failures).toBe(5);
});

test("a drain is obeyed: acknowledgements are still read, runs go on, the next dial waits as told", async () => {
  const peer = await startPeer();
  const { onAssignment, calls } = manualHandler();
  const { events } = startDevice(peer.url, { onAssignment, maxConcurrency: 2 });
  const first = await peer.session();
  peer.acknowledges = false;
  const done = first.assign();
  first.assign();
  await first.next("accept");
  await first.next("accept");
  calls[0]?.finish({ outcome: "completed" });
  await first.next("complete");
  first.drain(DrainReason.SHUTDOWN, 150);
  first.acknowledge(done, CompletionVerdict.STORED);
  const drained = await events.next("drained");
  await events.next("acknowledged");
  peer.acknowledges = true;
  const second = await peer.session();
  const connected = await events.next("connected", () => true, 2);
  expect(connected.atMs - drained.atMs).toBeGreaterThanOrEqual(145);
  expect(second.hello.held).toHaveLength(1);
  expect(calls[1]?.signal.aborted).toBe(false);
});

test("a device that was removed stops, and says what to do", async () => {
  const peer = await startPeer();
  const { device, events } = startDevice(peer.url);
  (await peer.session()).drain(DrainReason.REVOKED);
  await expect(device.closed).rejects.toMatchObject({ name: "DeviceError", reason: "revoked" });
  expect(events.of("fatal")[0]?.message).toContain("enrol it again");
  expect(device.state).toBe("closed");
  expect(peer.dials).toBe(1);
});

test.each([
  [status.UNAUTHENTICATED, "unauthenticated"],
  [status.PERMISSION_DENIED, "unauthenticated"],
  [status.INVALID_ARGUMENT, "incompatible"],
])("a refusal by name (%s) is fatal after three tries", async (code, reason) => {
  const peer = await startPeer();
  peer.refusal = { code, details: "no" };
  const { device } = startDevice(peer.url);
  await expect(device.closed).rejects.toMatchObject({ reason });
  expect(peer.dials).toBe(3);
});

test("a refusal that passes is survived", async () => {
  const peer = await startPeer();
  peer.refusal = { code: status.UNAUTHENTICATED, details: "the database is away" };
  const { events } = startDevice(peer.url);
  await events.next("retrying", () => true, 2);
  peer.refusal = undefined;
  await events.next("connected");
});

test("verdicts of the welcome are carried out: abort ends the handler and nothing is reported", async () => {
  const peer = await startPeer();
  const { onAssignment, calls } = manualHandler();
  const { events } = startDevice(peer.url, { onAssignment });
  const first = await peer.session();
  first.assign();
  await first.next("accept");
  peer.heldVerdict = () => HeldVerdict.ABORT;
  first.end();
  const second = await peer.session();
  await events.next("aborted");
  expect(calls[0]?.signal.aborted).toBe(true);
  second.assign();
  await second.next("accept");
  expect(second.all("complete")).toHaveLength(0);
  expect(second.all("cancelled")).toHaveLength(0);
});

test("an accept that may be lost with its stream is given again when the server asks again", async () => {
  const peer = await startPeer();
  const { onAssignment, calls } = manualHandler();
  startDevice(peer.url, { onAssignment });
  const first = await peer.session();
  const assignment = first.assign();
  await first.next("accept");
  peer.heldVerdict = () => HeldVerdict.UNSPECIFIED;
  first.end();
  const second = await peer.session();
  second.assign(assignment);
  expect((await second.next("accept")).attemptToken).toBe(assignment.attemptToken);
  expect(calls).toHaveLength(1);
});

test("a flood of output is bounded and thinned, and neither heartbeats nor the completion wait for it", async () => {
  const peer = await startPeer({ heartbeatMs: 50, ttlMs: 5_000 });
  const proxy = await startFaultProxy(peer);
  const flood = Buffer.alloc(1024 * 1024, "x");
  const { onAssignment, calls } = manualHandler();
  const { events } = startDevice(proxy.url, { onAssignment });
  const session = await peer.session();
  session.assign();
  await session.next("accept");
  proxy.set({ bytesPerSecond: 512 * 1024 });
  const before = session.all("heartbeat").length;
  for (let round = 0; round < 64; round++) {
    calls[0]?.output("stdout", flood);
    await new Promise((resolve) => setImmediate(resolve));
  }
  calls[0]?.finish({ outcome: "completed", output: "the end" });
  const finished = await events.next("finished");
  await session.next("heartbeat", ({ sequence }) => sequence > before + 1);
  await session.next("complete");
  expect(performance.timeOrigin + performance.now() - finished.atMs).toBeLessThan(20_000);
  const chunks = events.of("output");
  const sent = chunks.filter((event) => event.isSent);
  expect(chunks.at(-1)?.sequence).toBe(64n * 32n);
  expect(sent.length).toBeGreaterThan(0);
  expect(sent.length).toBeLessThan(200);
  expect(session.all("output").every(({ data }) => data.length <= 32_768)).toBe(true);
  expect(peer.violations).toEqual([]);
  await proxy.close();
});

test("a peer that does not read costs bounded memory, and the watchdog ends it", async () => {
  const peer = await startPeer({ heartbeatMs: 50, ttlMs: 500 });
  const proxy = await startFaultProxy(peer);
  const { onAssignment, calls } = manualHandler();
  const { events } = startDevice(proxy.url, { onAssignment });
  const session = await peer.session();
  session.assign();
  await session.next("accept");
  proxy.set({ up: "stall", down: "stall" });
  const chunk = Buffer.alloc(32 * 1024);
  for (let round = 0; round < 2_000; round++) calls[0]?.output("stdout", chunk);
  const sent = events.of("output").filter((event) => event.isSent).length;
  expect(sent).toBeLessThan(64);
  await events.next("disconnected");
  proxy.heal();
  await peer.session();
  calls[0]?.finish({ outcome: "completed" });
  await events.next("acknowledged");
  await proxy.close();
});

test("after the machine slept, the connection is made anew before anything else", async () => {
  const peer = await startPeer();
  const { events } = startDevice(peer.url, { timing: { wakeCheckMs: 20, wakeJumpMs: 1_000 } });
  await peer.session();
  await events.next("connected");
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 3_600_000 });
  try {
    const woke = await events.next("woke");
    expect(woke.sleptMs).toBeGreaterThan(3_500_000);
    await peer.session();
    expect((await events.next("retrying")).inMs).toBe(0);
  } finally {
    vi.useRealTimers();
  }
});

test("closing takes nothing new, ends what runs, delivers its result and says goodbye", async () => {
  const peer = await startPeer();
  const settle = Promise.withResolvers<void>();
  const { device } = startDevice(peer.url, {
    maxConcurrency: 2,
    onAssignment: async (_assignment, { signal }) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      await settle.promise;
      return { outcome: "failed", reason: "daemon stopped" };
    },
  });
  const session = await peer.session();
  session.assign();
  await session.next("accept");
  const closing = device.close();
  await until(() => device.state === "serving", "still serving");
  session.assign();
  expect((await session.next("reject")).reason).toBe(RejectReason.SHUTTING_DOWN);
  settle.resolve();
  expect((await session.next("complete")).reason).toBe("daemon stopped");
  await closing;
  await session.closed;
  await device.closed;
  expect(device.state).toBe("closed");
});

test("a handler that ignores the end is given up after the grace and reported", async () => {
  const peer = await startPeer();
  const { device } = startDevice(peer.url, { onAssignment: () => new Promise(() => {}) });
  const session = await peer.session();
  session.assign();
  await session.next("accept");
  await device.close({ graceMs: 50 });
  expect(session.all("complete")[0]?.reason).toContain("did not end in time");
});

test("a second connection with the same state directory is refused", async () => {
  const peer = await startPeer();
  const { stateDir, events } = startDevice(peer.url);
  await events.next("connected");
  const second = startDevice(peer.url, { stateDir });
  await expect(second.device.closed).rejects.toMatchObject({ reason: "locked" });
});

test("options that make no sense are refused at once", () => {
  const stateDir = makeStateDir();
  expect(() => startDevice("localhost:7420", { stateDir })).toThrow(/must begin with http|is not a URL/);
  expect(() => startDevice("http://localhost", { stateDir, installId: "short" })).toThrow(/installId/);
});
