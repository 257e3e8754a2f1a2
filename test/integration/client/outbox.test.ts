import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { CompletionVerdict, HeldAttemptState, HeldVerdict } from "#gen/pinion/v1/device_pb.js";
import { silentLogger } from "../../../clients/ts/src/index.ts";
import { manualHandler, startDevice, startPeer, until } from "./harness.ts";

const filesIn = (stateDir: string, folder = "") =>
  readdirSync(join(stateDir, "outbox", folder)).filter((name) => name.endsWith(".completion"));

test("a completion stays on the disk until it is acknowledged", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  const { events, stateDir } = startDevice(peer.url, { timing: { ackDeadlineMs: 60_000 } });
  const session = await peer.session();
  const assignment = session.assign();
  await session.next("complete");
  expect(filesIn(stateDir)).toEqual([`${assignment.workId}.${assignment.attemptToken}.completion`]);
  session.acknowledge(assignment, CompletionVerdict.STORED);
  await events.next("acknowledged");
  await until(() => filesIn(stateDir).length === 0, "the file is gone");
});

test("a lost acknowledgement leads to a repeat on the same stream, and its verdict ends it", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  const { events } = startDevice(peer.url, { timing: { ackDeadlineMs: 60 } });
  const session = await peer.session();
  const { attemptToken } = session.assign();
  await session.next("complete");
  peer.acknowledges = true;
  expect(await events.next("acknowledged")).toMatchObject({ verdict: "already_stored" });
  expect(peer.stored.get(attemptToken)?.times).toBe(2);
});

test("an acknowledgement lost with its stream is made up for by the verdict of the next welcome", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  const { events, stateDir } = startDevice(peer.url);
  const first = await peer.session();
  const { attemptToken } = first.assign();
  await first.next("complete");
  first.end();
  const second = await peer.session();
  expect(second.hello.held).toMatchObject([{ attemptToken, state: HeldAttemptState.FINISHED }]);
  expect(await events.next("acknowledged")).toMatchObject({ verdict: "already_stored" });
  await until(() => filesIn(stateDir).length === 0, "the file is gone");
  expect(second.all("complete")).toHaveLength(0);
});

test.each([
  [CompletionVerdict.STORED, "stored"],
  [CompletionVerdict.ALREADY_STORED, "already_stored"],
  [CompletionVerdict.STORED_LATE, "stored_late"],
  [CompletionVerdict.SUPERSEDED, "superseded"],
] as const)("verdict %s lets the device forget", async (verdict, name) => {
  const peer = await startPeer();
  peer.completionVerdict = verdict;
  const { events, stateDir } = startDevice(peer.url);
  (await peer.session()).assign();
  expect((await events.next("acknowledged")).verdict).toBe(name);
  await until(() => filesIn(stateDir).length === 0, "the file is gone");
});

test("a verdict that is newer than the device makes it keep the completion and send it again", async () => {
  const peer = await startPeer();
  peer.completionVerdict = 99 as CompletionVerdict;
  const { events, stateDir } = startDevice(peer.url);
  const first = await peer.session();
  const { attemptToken } = first.assign();
  await first.next("complete");
  first.end();
  const second = await peer.session();
  peer.completionVerdict = CompletionVerdict.STORED;
  expect(await second.next("complete")).toMatchObject({ attemptToken });
  expect((await events.next("acknowledged")).verdict).toBe("stored");
  await until(() => filesIn(stateDir).length === 0, "the file is gone");
});

test.each([[CompletionVerdict.INVALID], [CompletionVerdict.UNKNOWN]] as const)(
  "verdict %s sets the completion aside for a person, and it is not sent again",
  async (verdict) => {
    const peer = await startPeer();
    peer.completionVerdict = verdict;
    const { events, stateDir } = startDevice(peer.url);
    const session = await peer.session();
    session.assign();
    const aside = await events.next("set_aside");
    expect(filesIn(stateDir)).toEqual([]);
    expect(filesIn(stateDir, "rejected")).toHaveLength(1);
    expect(readFileSync(aside.path).length).toBeGreaterThan(0);
  },
);

test("output is cut to the session's limit between two characters, and says so", async () => {
  const peer = await startPeer({ limits: { completionOutputBytesMax: 1_000n } });
  startDevice(peer.url, {
    onAssignment: async () => ({ outcome: "completed", output: "aé€😀".repeat(500) }),
  });
  const session = await peer.session();
  session.assign();
  const completion = await session.next("complete");
  expect(Buffer.byteLength(completion.output)).toBeGreaterThan(950);
  expect(Buffer.byteLength(completion.output)).toBeLessThanOrEqual(1_000);
  const whole = "aé€😀".repeat(500);
  const [head, tail] = completion.output.split(/\n… \[\d+ bytes omitted\] …\n/);
  expect(whole.startsWith(head!) && whole.endsWith(tail!)).toBe(true);
  expect(completion.isOutputTruncated).toBe(true);
});

test("a result within no message limit would end the stream for ever: it is cut before it is sent", async () => {
  const peer = await startPeer({ limits: { messageBytesMax: 16_384n } });
  startDevice(peer.url, {
    onAssignment: async () => ({ outcome: "completed", output: "x".repeat(500_000) }),
  });
  const session = await peer.session();
  session.assign();
  const { output } = await session.next("complete");
  // The room of the marker between head and tail is kept for the longest number of omitted bytes.
  expect(Buffer.byteLength(output)).toBeGreaterThan(8_050);
  expect(Buffer.byteLength(output)).toBeLessThanOrEqual(8_192);
});

test("what a handler says is brought within the protocol's rules", async () => {
  const peer = await startPeer();
  startDevice(peer.url, {
    onAssignment: async () => ({
      outcome: "failed",
      output: "half a pair: \ud800",
      reason: "é".repeat(5_000),
      signal: "S".repeat(100),
      exitCode: 3_221_225_477,
      durationMs: -5,
    }),
  });
  const session = await peer.session();
  session.assign();
  const completion = await session.next("complete");
  expect(peer.violations).toEqual([]);
  expect(completion.output).toBe("half a pair: \ufffd");
  expect(completion.exitCode).toBe(-1_073_741_819);
});

test("records that are damaged are set aside at the start and reported; good ones are delivered", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  const first = startDevice(peer.url, { timing: { ackDeadlineMs: 60_000 } });
  const session = await peer.session();
  const assignment = session.assign();
  await session.next("complete");
  await first.device.close({ flushMs: 0 });
  peer.acknowledges = true;
  peer.stored.clear();
  const outbox = join(first.stateDir, "outbox");
  const [good = ""] = filesIn(first.stateDir);
  const bytes = readFileSync(join(outbox, good));
  writeFileSync(join(outbox, "torn.completion"), bytes.subarray(0, bytes.length - 7));
  writeFileSync(join(outbox, "stray.tmp"), "half");
  const second = startDevice(peer.url, { stateDir: first.stateDir });
  expect((await second.events.next("set_aside")).problem).toContain("checksum");
  expect(await second.events.next("acknowledged")).toMatchObject({
    attemptToken: assignment.attemptToken,
    verdict: "stored",
  });
  expect(filesIn(first.stateDir, "bad")).toEqual(["torn.completion"]);
  await until(() => !readdirSync(outbox).includes("stray.tmp"), "the temporary file is gone");
});

/** Makes a file fail to be read (ELOOP) until `mend` is called. */
function spoil(path: string): { mend(): void } {
  renameSync(path, `${path}.kept`);
  symlinkSync(path, path);
  return { mend: () => renameSync(`${path}.kept`, path) };
}

test("a record that cannot be read at the start is kept, held as finished, and delivered when it can be read", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  const first = startDevice(peer.url, { timing: { ackDeadlineMs: 60_000 } });
  const session = await peer.session();
  const { attemptToken } = session.assign();
  await session.next("complete");
  await first.device.close({ flushMs: 0 });
  peer.acknowledges = true;
  peer.stored.clear();
  const [name = ""] = filesIn(first.stateDir);
  const file = spoil(join(first.stateDir, "outbox", name));
  const second = startDevice(peer.url, { stateDir: first.stateDir });
  const next = await peer.session();
  expect(next.hello.held).toMatchObject([{ attemptToken, state: HeldAttemptState.FINISHED }]);
  await next.next("heartbeat");
  file.mend();
  expect(await second.events.next("acknowledged")).toMatchObject({ attemptToken, verdict: "stored" });
  expect(second.events.of("set_aside")).toEqual([]);
});

test("a record that cannot be read for a while is kept, said once, and delivered later", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  peer.heldVerdict = () => HeldVerdict.SEND_RESULT;
  const warnings: string[] = [];
  const logger = { ...silentLogger, warn: (_fields: unknown, message: string) => warnings.push(message) };
  const { events, stateDir } = startDevice(peer.url, { logger, timing: { ackDeadlineMs: 100 } });
  const first = await peer.session();
  const { attemptToken } = first.assign();
  await first.next("complete");
  const [name = ""] = filesIn(stateDir);
  const file = spoil(join(stateDir, "outbox", name));
  first.end();
  const second = await peer.session();
  peer.acknowledges = true;
  await until(() => warnings.some((message) => message.includes("cannot read")), "the warning");
  const before = second.all("heartbeat").length;
  await second.next("heartbeat", ({ sequence }) => sequence > before + 2);
  expect(second.all("complete")).toEqual([]);
  file.mend();
  expect(await events.next("acknowledged")).toMatchObject({ attemptToken });
  expect(warnings.filter((message) => message.includes("cannot read"))).toHaveLength(1);
  expect(events.of("set_aside")).toEqual([]);
  expect(filesIn(stateDir, "bad")).toEqual([]);
});

test("a record that somebody removed is forgotten", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  peer.heldVerdict = () => HeldVerdict.SEND_RESULT;
  const { device, events, stateDir } = startDevice(peer.url);
  const session = await peer.session();
  session.assign();
  await session.next("complete");
  const [name = ""] = filesIn(stateDir);
  rmSync(join(stateDir, "outbox", name));
  session.end();
  await peer.session();
  await until(() => device.unacknowledged === 0, "forgotten");
  expect(events.of("set_aside")).toEqual([]);
});

test("heartbeats list every attempt whose result is not acknowledged, sent or waiting, until it is", async () => {
  const peer = await startPeer({ heartbeatMs: 30 });
  peer.acknowledges = false;
  const { onAssignment, calls } = manualHandler();
  const { device } = startDevice(peer.url, {
    onAssignment,
    maxConcurrency: 21,
    timing: { ackDeadlineMs: 60_000 },
  });
  const session = await peer.session();
  const assignments = Array.from({ length: 21 }, () => session.assign());
  await until(() => calls.length === 21, "21 handlers");
  for (const call of calls.slice(1)) call.finish({ outcome: "completed" });
  await until(() => device.unacknowledged === 20 && device.running === 1, "20 results");
  const tokens = assignments.map(({ attemptToken }) => attemptToken).sort();
  await until(() => session.all("complete").length === 16, "as many as may be on their way");
  const listed = async () => {
    // A heartbeat after the answer to this cancel was written after all messages seen from the
    // device so far.
    session.cancel({ workId: randomUUID(), attemptToken: randomUUID() });
    await session.next("cancelled");
    const before = session.all("heartbeat").length;
    const beat = await session.next("heartbeat", ({ sequence }) => sequence > before);
    return beat.attempts.map(({ attemptToken }) => attemptToken).sort();
  };
  expect(await listed()).toEqual(tokens);
  expect(session.all("complete")).toHaveLength(16);
  peer.acknowledges = true;
  for (const { workId, attemptToken } of session.all("complete")) {
    session.acknowledge({ workId, attemptToken }, CompletionVerdict.STORED);
  }
  await until(() => device.unacknowledged === 0, "acknowledged");
  const running = assignments.find(({ workId }) => workId === calls[0]?.workId);
  expect(await listed()).toEqual([running?.attemptToken]);
});

test("a server that disowns an attempt whose result is on its way gets the result once, and no more", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  const { device } = startDevice(peer.url, { timing: { ackDeadlineMs: 60_000 } });
  const session = await peer.session();
  const assignment = session.assign();
  await session.next("complete");
  for (let round = 0; round < 3; round++) session.cancel(assignment, "not yours any more");
  const marker = session.assign();
  await session.next("complete", ({ attemptToken }) => attemptToken === marker.attemptToken);
  expect(session.all("complete")).toHaveLength(2);
  expect(session.all("cancelled")).toEqual([]);
  expect(device.unacknowledged).toBe(2);
});

test("many completions that piled up are all delivered, each once", async () => {
  const peer = await startPeer();
  const { onAssignment, calls } = manualHandler();
  const { events, device } = startDevice(peer.url, { onAssignment, maxConcurrency: 64 });
  const first = await peer.session();
  for (let index = 0; index < 60; index++) first.assign();
  await until(() => first.all("accept").length === 60, "60 accepts");
  peer.welcomes = false;
  first.end();
  await peer.session();
  for (const call of calls) call.finish({ outcome: "completed", output: call.workId });
  await until(() => device.unacknowledged === 60, "60 in the outbox");
  peer.welcomes = true;
  await events.next("acknowledged", () => true, 60);
  expect(peer.stored.size).toBe(60);
  expect([...peer.stored.values()].every(({ times }) => times === 1)).toBe(true);
});

test("without a stream for long, completions go by the unary call", async () => {
  const peer = await startPeer();
  const { onAssignment, calls } = manualHandler();
  const { events } = startDevice(peer.url, { onAssignment, timing: { unaryAfterMs: 300, backoffCapMs: 20 } });
  const session = await peer.session();
  const { attemptToken } = session.assign();
  await session.next("accept");
  peer.refusal = { code: status.UNAVAILABLE, details: "streams do not get through this proxy" };
  session.end();
  await events.next("disconnected");
  calls[0]?.finish({ outcome: "completed", output: "by post" });
  expect(await events.next("acknowledged")).toMatchObject({ verdict: "stored", attemptToken });
  expect(peer.unaryCompletions).toMatchObject([{ output: "by post" }]);
});

test("a completion that ends the stream again and again goes by the unary call, which names what is wrong", async () => {
  const peer = await startPeer();
  const { onAssignment, calls } = manualHandler();
  const { events, stateDir } = startDevice(peer.url, { onAssignment });
  peer.heldVerdict = () => HeldVerdict.SEND_RESULT;
  peer.unaryRefusal = { code: status.INVALID_ARGUMENT, details: "output: too long" };
  peer.acknowledges = false;
  const first = await peer.session();
  first.assign();
  await first.next("accept");
  calls[0]?.finish({ outcome: "completed" });
  await first.next("complete");
  first.fail(status.INVALID_ARGUMENT, "output: too long");
  const second = await peer.session();
  await second.next("complete");
  second.fail(status.INVALID_ARGUMENT, "output: too long");
  expect((await events.next("set_aside")).problem).toBe("output: too long");
  expect(filesIn(stateDir, "rejected")).toHaveLength(1);
});
