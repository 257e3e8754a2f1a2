/**
 * `pinion turns` and `pinion conversations` against a real replica, with a hand-driven fleet
 * worker.
 */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { CompletionVerdict, Outcome } from "#gen/pinion/v1/device_pb.js";
import { OutputStream } from "#gen/pinion/v1/run_pb.js";
import { TurnStatus } from "#gen/pinion/v1/turn_pb.js";
import { sweepTurnsOnce } from "../../../src/scheduler/endings/turn-sweep.ts";
import { runCommand } from "../../support/command.ts";
import { useDatabase } from "../../support/database.ts";
import { answer, nameOf, untilTurn } from "../../support/talk.ts";
import { takeOn, useReplicas } from "../../support/work.ts";
import { connectWorker, fleetToken, workerIdentity } from "../../support/worker.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "first");

const pinion = (...args: string[]) =>
  runCommand({ PINION_URL: replicas.first.url, PINION_TOKEN: replicas.first.token }, ...args);
const openWorker = async () =>
  connectWorker(replicas.first.url, workerIdentity(await fleetToken(replicas.first.clients)));

test("a message is answered on standard output as it comes, once, and the conversation remembers", async () => {
  const worker = await openWorker();
  const asking = pinion("turns", "start", "--user", "ada", "--message-id", "m1", "what is new?");
  const assignment = await takeOn(worker);
  expect(assignment.turn).toMatchObject({
    input: "what is new?",
    conversationId: "pinion-default_ada_local",
  });
  worker.send({
    case: "output",
    value: {
      ...nameOf(assignment),
      sequence: 1n,
      stream: OutputStream.STDOUT,
      data: Buffer.from("nothing much"),
    },
  });
  await answer(worker, assignment, "nothing much", "remember");
  const asked = await asking;
  expect(asked).toMatchObject({ code: 0, out: expect.stringMatching(/^nothing much\n?$/) });
  expect(asked.err).toContain("completed");
  // The same message answers the same turn, without a worker.
  const again = await pinion(
    ...["turns", "start", "--user", "ada", "--message-id", "m1", "--detach", "--json", "what is new?"],
  );
  const { turn, already_started } = JSON.parse(again.out);
  expect(already_started).toBe(true);
  const got = await pinion("turns", "get", turn.id);
  expect(got).toMatchObject({ code: 0, err: "" });
  expect(got.out).toMatch(/status +completed/);
  expect(got.out).toMatch(/\n\nnothing much\n$/);
  const snapshot = await pinion("conversations", "get", "pinion-default_ada_local", "--snapshot");
  expect(snapshot).toMatchObject({ code: 0, out: "remember" });
  const details = await pinion("conversations", "get", "pinion-default_ada_local");
  expect(details.out).toMatch(/snapshot +version 1, 8 bytes/);
  worker.end();
  await worker.ended;
});

test("a turn that fails ends the command with 1, and says why", async () => {
  const worker = await openWorker();
  const asking = pinion("turns", "start", "--no-snapshot", "break");
  const assignment = await takeOn(worker);
  worker.send({
    case: "complete",
    value: { ...nameOf(assignment), outcome: Outcome.FAILED, reason: "it broke", exitCode: 3 },
  });
  const asked = await asking;
  expect(asked.code).toBe(1);
  expect(asked.err).toContain("it broke");
  worker.end();
  await worker.ended;
});

test("a reply that came after its turn had ended is shown beside it", async () => {
  const worker = await openWorker();
  const started = await pinion("turns", "start", "--no-snapshot", "--detach", "take your time");
  const assignment = await takeOn(worker);
  await sql`update turn set deadline_at = now() - interval '1 s'`.execute(database.db);
  await sweepTurnsOnce(database.db, { ttlMs: 60_000 });
  const id = started.out.trim();
  await untilTurn(replicas.first.clients, { id }, TurnStatus.FAILED);
  expect(await answer(worker, assignment, "there it is")).toBe(CompletionVerdict.SUPERSEDED);
  const { out: shown } = await pinion("turns", "get", id);
  expect(shown).toContain("came late, is not its own result");
  expect(shown).toContain("there it is");
  const machine = JSON.parse((await pinion("turns", "get", id, "--json")).out);
  expect(machine).toMatchObject({ id, late_results: [{ attempt: 1, output: "there it is" }] });
  worker.end();
  await worker.ended;
});

test("what waits is listed by conversation and state, cancelled in place, and a conversation is deleted after that", async () => {
  const started = await pinion("turns", "start", "--user", "bob", "--detach", "hello");
  expect(started.code).toBe(0);
  const id = started.out.trim();
  const listed = await pinion(
    "turns",
    "list",
    "--conversation",
    "pinion-default_bob_local",
    "--status",
    "pending",
  );
  expect(listed.out).toContain(id);
  const machine = await pinion("turns", "list", "--conversation", "pinion-default_bob_local", "--json");
  expect(JSON.parse(machine.out).turns).toMatchObject([{ id, status: "TURN_STATUS_PENDING" }]);
  const early = await pinion("conversations", "delete", "pinion-default_bob_local");
  expect(early.code).toBe(6);
  expect(early.err).toContain("cancel it first");
  const cancelled = await pinion("turns", "cancel", id, "--reason", "enough");
  expect(cancelled).toMatchObject({ code: 0, out: `${id} is cancelled\n` });
  expect((await pinion("turns", "watch", id)).code).toBe(1);
  const conversations = await pinion("conversations", "list");
  expect(conversations.out).toContain("pinion-default_bob_local");
  expect(await pinion("conversations", "delete", "pinion-default_bob_local")).toMatchObject({ code: 0 });
  for (const gone of [
    ["conversations", "get", "pinion-default_bob_local"],
    ["turns", "get", id],
  ]) {
    expect((await pinion(...gone)).code).toBe(5);
  }
});

test("what cannot be a turn's id, and a length that is none, are turned down before anything is sent", async () => {
  const named = await pinion("turns", "get", "latest");
  expect(named).toMatchObject({ code: 2, out: "" });
  expect(named.err).toContain('"latest" is no turn id');
  expect((await pinion("turns", "start", "--timeout", "soon", "hello")).code).toBe(2);
  const empty = await pinion("turns", "list", "--conversation", "pinion-default_nobody_local");
  expect(empty).toMatchObject({ code: 0, out: "" });
});
