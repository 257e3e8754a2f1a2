/**
 * Acknowledged results are kept for a while, and offered again to a database that may have lost
 * them (DESIGN 16).
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { CompletionVerdict } from "#gen/pinion/v1/device_pb.js";
import { listKept } from "../../../clients/ts/src/index.ts";
import { startDevice, startPeer, until } from "./harness.ts";

const kept = (stateDir: string) => readdirSync(join(stateDir, "outbox", "kept"));
const first = { systemIdentifier: "7420", timeline: 1, position: "0/3000148" };
const promoted = { ...first, timeline: 2 };

/** A device whose server stored a result, before the failover of the database. */
async function begin(outcome: "completed" | "failed" = "completed") {
  const peer = await startPeer();
  peer.incarnation = first;
  let programs = 0;
  const { events, stateDir, device } = startDevice(peer.url, {
    onAssignment: async () => {
      programs += 1;
      return { outcome, output: `done ${programs}` };
    },
  });
  const session = await peer.session();
  const assignment = session.assign();
  await session.next("complete");
  await events.next("acknowledged");
  await until(() => kept(stateDir).length === 1, "the result is kept");
  const failOver = async () => {
    peer.incarnation = promoted;
    session.end();
    return peer.session();
  };
  return { peer, device, events, stateDir, session, assignment, failOver, programs: () => programs };
}

test("an acknowledged result is kept, and offered again with its run to another timeline, once", async () => {
  const { session, assignment, failOver, stateDir, peer } = await begin();
  expect(session.all("complete")[0]!.reoffer).toBeUndefined();
  const second = await failOver();
  // An acknowledged result is not held any more: only a completion mentions it.
  expect(second.hello.held).toEqual([]);
  const offered = await second.next("complete");
  expect(offered).toMatchObject({
    ...{ runId: assignment.runId, attemptToken: assignment.attemptToken, output: "done 1" },
    reoffer: { watcherId: assignment.watcher!.id, attempt: 1, source: assignment.event!.source },
  });
  await until(() => kept(stateDir)[0]!.endsWith("7420-2.kept"), "it is noted");
  second.end();
  const third = await peer.session();
  third.assign();
  await third.next("complete");
  expect(third.all("complete").filter((sent) => sent.reoffer)).toEqual([]);
});

test("a run that the new database assigns again is answered with the result, and its program does not run twice", async () => {
  const { assignment, failOver, programs } = await begin();
  const second = await failOver();
  const again = second.assign({ runId: assignment.runId, attempt: 1 });
  await until(
    () => second.all("complete").some((sent) => sent.attemptToken === again.attemptToken),
    "the new attempt is answered",
  );
  const answer = second.all("complete").find((sent) => sent.attemptToken === again.attemptToken);
  expect(answer).toMatchObject({ runId: assignment.runId, output: "done 1" });
  expect(programs()).toBe(1);
});

test("a completed run whose result the new database lost has no second attempt", async () => {
  const { assignment, failOver, programs } = await begin();
  const second = await failOver();
  const again = second.assign({ runId: assignment.runId, attempt: 2 });
  await until(
    () => second.all("complete").some((sent) => sent.attemptToken === again.attemptToken),
    "the new attempt is answered",
  );
  expect(programs()).toBe(1);
});

test("a result that waits for its verdict answers a further attempt of its run, too", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  let programs = 0;
  startDevice(peer.url, {
    maxConcurrency: 2,
    onAssignment: async () => {
      programs += 1;
      return { outcome: "completed", output: `done ${programs}` };
    },
  });
  const session = await peer.session();
  const { runId } = session.assign();
  await session.next("complete");
  const again = session.assign({ runId, attempt: 2 });
  await until(
    () => session.all("complete").some((sent) => sent.attemptToken === again.attemptToken),
    "the second attempt is answered",
  );
  expect(programs).toBe(1);
});

test("a result whose run the server does not know is sent once more with its run, and then set aside", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  const { events } = startDevice(peer.url, {
    onAssignment: async () => ({ outcome: "completed", output: "it" }),
  });
  const session = await peer.session();
  const assignment = session.assign();
  expect((await session.next("complete")).reoffer).toBeUndefined();
  session.acknowledge(assignment, CompletionVerdict.UNKNOWN);
  await until(() => session.all("complete").length === 2, "it is sent again");
  expect(session.all("complete")[1]).toMatchObject({
    ...{ attemptToken: assignment.attemptToken, output: "it" },
    reoffer: { watcherId: assignment.watcher!.id, attempt: 1 },
  });
  session.acknowledge(assignment, CompletionVerdict.UNKNOWN);
  await events.next("acknowledged", ({ verdict }) => verdict === "unknown");
});

test("a retry, and whatever the same database assigns, runs", async () => {
  const { assignment, events, session, failOver, programs } = await begin("failed");
  session.assign({ runId: assignment.runId, attempt: 1 });
  await until(() => programs() === 2, "it ran");
  // The attempt holds the device's only slot until the server has acknowledged the result.
  await events.next("acknowledged", () => true, 2);
  const second = await failOver();
  second.assign({ runId: assignment.runId, attempt: 2 });
  await until(() => programs() === 3, "it ran");
});

test("what is kept is bounded by size and by age, the oldest going first", async () => {
  const peer = await startPeer();
  peer.incarnation = first;
  const { events, stateDir } = startDevice(peer.url, {
    keep: { ms: 60_000, bytes: 5_000 },
    onAssignment: async () => ({ outcome: "completed", output: "x".repeat(2_000) }),
  });
  const session = await peer.session();
  const tokens: string[] = [];
  for (let i = 1; i <= 4; i++) {
    tokens.push(session.assign().attemptToken);
    await events.next("acknowledged", () => true, i);
    await until(() => kept(stateDir).some((name) => name.includes(tokens.at(-1)!)), "it is kept");
  }
  await until(() => kept(stateDir).length === 2, "the oldest are gone");
  expect(kept(stateDir).every((name) => tokens.slice(2).some((token) => name.includes(token)))).toBe(true);
});

test("new bounds of a device that runs take effect at once", async () => {
  const peer = await startPeer();
  peer.incarnation = first;
  const { device, events, stateDir } = startDevice(peer.url);
  const session = await peer.session();
  const token = session.assign().attemptToken;
  await events.next("acknowledged");
  await until(() => kept(stateDir).some((name) => name.includes(token)), "it is kept");
  expect((await listKept(stateDir)).map(({ attemptToken }) => attemptToken)).toEqual([token]);
  device.update({ keep: { ms: 60_000, bytes: 1 } });
  await until(() => kept(stateDir).length === 0, "it is dropped");
  expect(await listKept(stateDir)).toEqual([]);
});

test("a server that does not say which database it has keeps nothing at its devices", async () => {
  const peer = await startPeer();
  const { events, stateDir } = startDevice(peer.url);
  (await peer.session()).assign();
  await events.next("acknowledged");
  await until(
    () => readdirSync(join(stateDir, "outbox")).every((name) => !name.endsWith(".completion")),
    "the file is gone",
  );
  expect(kept(stateDir)).toEqual([]);
});
