/**
 * Questions of agents: durable, answered once, by any permitted person, over any replica, or ended
 * by their deadline.
 */
import { randomUUID } from "node:crypto";
import { durationFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { expect, test, vi } from "vitest";
import { QuestionDefault, QuestionOptionKind, QuestionResponders } from "#gen/pinion/v1/activity_pb.js";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { GrantPermission } from "#gen/pinion/v1/fleet_pb.js";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import { QuestionState } from "#gen/pinion/v1/run_pb.js";
import { TurnStatus } from "#gen/pinion/v1/turn_pb.js";
import { sweepTurnsOnce } from "../../../../src/scheduler/endings/turn-sweep.ts";
import { closeDueOnce } from "../../../../src/scheduler/questions.ts";
import { runCommand } from "../../../support/command.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice } from "../../../support/device.ts";
import { getRun, heldOf, startWork, takeOn, useReplicas, watchRun } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here", "there");

type Attempt = { workId: string; attemptToken: string };

const options = [
  { id: "yes", label: "Yes", kind: QuestionOptionKind.ALLOW_ONCE },
  { id: "always", label: "Always", kind: QuestionOptionKind.ALLOW_ALWAYS },
  { id: "no", label: "No", kind: QuestionOptionKind.DENY_ONCE },
];

function ask(stream: DeviceStream, { workId, attemptToken }: Attempt, id = "q1", more = {}) {
  stream.send({
    case: "question",
    value: {
      workId,
      attemptToken,
      question: { id, title: "May I push?", options, toolRule: "Bash(git push)", ...more },
    },
  });
}

async function begin(spec: Parameters<typeof startWork>[2] = {}) {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const run = await startWork(clients, device, spec);
  const attempt = await takeOn(stream);
  return { clients, url, device, stream, run, attempt };
}

const isOpen = (runId: string) =>
  vi.waitFor(async () =>
    expect((await getRun(replicas.here.clients, { workId: runId })).openQuestions).toBe(1),
  );

test("a question is asked on one replica and answered on another; its device hears the answer at once", async () => {
  const { stream, run, attempt } = await begin();
  const watching = watchRun(replicas.there.clients, { workId: run.id });
  ask(stream, attempt);
  await isOpen(run.id);
  await vi.waitFor(() => expect(watching.runs.at(-1)?.openQuestions).toBe(1));
  const { questions } = await replicas.there.clients.runs.listQuestions({ runId: run.id, isOpen: true });
  expect(questions).toMatchObject([
    {
      state: QuestionState.OPEN,
      question: { id: "q1", title: "May I push?" },
      responders: QuestionResponders.USERS,
    },
  ]);
  const { question } = await replicas.there.clients.runs.answerQuestion({ runId: run.id, optionId: "yes" });
  expect(question).toMatchObject({ state: QuestionState.ANSWERED, optionId: "yes" });
  expect(question!.answeredBy).toMatch(/^user:/);
  expect(await stream.next("answer")).toMatchObject({ questionId: "q1", optionId: "yes", isDefault: false });
  expect((await getRun(replicas.here.clients, { workId: run.id })).openQuestions).toBe(0);
});

test("the first answer counts, and the second one hears whose that was", async () => {
  const { stream, run, attempt } = await begin();
  ask(stream, attempt);
  await isOpen(run.id);
  const both = await Promise.allSettled(
    [replicas.here, replicas.there].map(({ clients }, index) =>
      clients.runs.answerQuestion({ runId: run.id, questionId: "q1", optionId: index === 0 ? "yes" : "no" }),
    ),
  );
  expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  const refused = both.find((one) => one.status === "rejected");
  expect(String((refused as PromiseRejectedResult).reason)).toMatch(/user:.* has answered at/);
  await stream.next("answer");
  expect(stream.waiting("answer")).toEqual([]);
});

test("a device that asks again after a reconnect is answered as before, and there is one question", async () => {
  const { clients, url, device, stream, run, attempt } = await begin();
  ask(stream, attempt);
  await isOpen(run.id);
  stream.cancel();
  await clients.runs.answerQuestion({ runId: run.id, optionId: "no" });
  const again = await connect(url, device, { held: [heldOf(attempt)] });
  ask(again, attempt);
  expect(await again.next("answer")).toMatchObject({ questionId: "q1", optionId: "no" });
  expect((await clients.runs.listQuestions({ runId: run.id })).questions).toHaveLength(1);
});

test("at its deadline a question takes the default of its watcher, once", async () => {
  const { stream, run, attempt } = await begin({
    questions: { timeout: durationFromMs(10_000), defaultAnswer: QuestionDefault.ALLOW },
  });
  ask(stream, attempt);
  await isOpen(run.id);
  await sql`update question set deadline_at = now() where work_id = ${run.id}`.execute(database.db);
  const told: string[] = [];
  const bell = {
    asked() {},
    answered: (rows: readonly { id: string }[]) => told.push(...rows.map(({ id }) => id)),
  };
  const ended = await Promise.all([closeDueOnce(database.db, bell), closeDueOnce(database.db, bell)]);
  expect(ended.reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(1);
  const { questions } = await replicas.here.clients.runs.listQuestions({ runId: run.id });
  expect(questions).toMatchObject([{ state: QuestionState.EXPIRED, optionId: "yes", answeredBy: "" }]);
});

test("who may answer is the watcher's to say; always is for admins, and edits the agent", async () => {
  const { clients, stream, run, attempt } = await begin();
  ask(stream, attempt);
  await isOpen(run.id);
  await clients.runs.answerQuestion({ runId: run.id, optionId: "always", always: true });
  const { agent } = await clients.agents.getAgent({ agentId: run.agentId });
  expect(agent!.settings!.preApprovedTools).toContain("Bash(git push)");
});

test("an answer for good and its rule are stored together, or neither is", async () => {
  const { clients, stream, run, attempt } = await begin();
  ask(stream, attempt, "q1", { toolRule: "Bash(make)" });
  await isOpen(run.id);
  // The edit of the agent fails, as for a replica that dies in the middle.
  await sql`create function fail() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$`.execute(
    database.db,
  );
  await sql`create trigger fail before insert on agent_revision for each row execute function fail()`.execute(
    database.db,
  );
  const answer = () => clients.runs.answerQuestion({ runId: run.id, optionId: "always", always: true });
  await expect(answer()).rejects.toThrow();
  await isOpen(run.id);
  await sql`drop trigger fail on agent_revision`.execute(database.db);
  expect(await answer()).toMatchObject({ question: { state: QuestionState.ANSWERED } });
  const { agent } = await clients.agents.getAgent({ agentId: run.agentId });
  expect(agent!.settings!.preApprovedTools).toContain("Bash(make)");
});

test("a person who is no admin allows once and never for good: by the API and by the command", async () => {
  const { clients, stream, run, attempt, device } = await begin();
  const { member, secret } = await clients.orgs.addMember({
    ...{ email: `${randomUUID()}@example.org`, role: MemberRole.MEMBER, tokenScopes: ["read", "write"] },
  });
  await clients.fleet.grantDevice({
    deviceId: device.deviceId,
    grantee: { kind: { case: "userId", value: member!.userId } },
    permissions: [GrantPermission.USE, GrantPermission.READ],
  });
  ask(stream, attempt);
  await isOpen(run.id);
  const theirs = createClients({ url: replicas.there.url, token: secret });
  const refused = /for admins of the org/;
  for (const answer of [
    { optionId: "yes", always: true },
    { optionId: "always", always: true },
    { optionId: "always", always: false },
  ]) {
    await expect(theirs.runs.answerQuestion({ runId: run.id, ...answer })).rejects.toThrow(refused);
    const always = answer.always ? ["--always"] : [];
    const env = { PINION_URL: replicas.there.url, PINION_TOKEN: secret };
    const typed = await runCommand(env, "runs", "answer", run.id, answer.optionId, ...always);
    expect(typed).toMatchObject({ code: 4, err: expect.stringMatching(refused) });
  }
  expect((await getRun(clients, { workId: run.id })).openQuestions).toBe(1);
  const { agent } = await clients.agents.getAgent({ agentId: run.agentId });
  const { question } = await theirs.runs.answerQuestion({ runId: run.id, optionId: "yes" });
  expect(question).toMatchObject({ state: QuestionState.ANSWERED, optionId: "yes" });
  expect((await clients.agents.getAgent({ agentId: run.agentId })).agent).toEqual(agent);
});

/** A device with an ended run, and a turn that continues the run. */
async function beginTurn(spec: Parameters<typeof startWork>[2] = {}) {
  const on = await begin(spec);
  const { workId, attemptToken } = on.attempt;
  const done = { outcome: Outcome.COMPLETED, resultText: "done", sessionId: "s-1" };
  on.stream.send({ case: "complete", value: { workId, attemptToken, ...done } });
  await on.stream.next("completionAck");
  const asked = { resumeRunId: on.run.id, messageId: randomUUID(), input: "and now push" };
  const { turn } = await on.clients.turns.startTurn(asked);
  return { ...on, turn: turn!, attempt: await takeOn(on.stream) };
}

const openOfTurn = async (turnId: string) =>
  (await replicas.there.clients.turns.getTurn({ turnId })).turn?.openQuestions;

test("the agent of a turn asks as that of a run does: seen by those who watch, answered once on any replica", async () => {
  const { clients, stream, turn, run, attempt } = await beginTurn();
  const abort = new AbortController();
  const seen: number[] = [];
  const watching = (async () => {
    for await (const { update } of replicas.there.clients.turns.watchTurn(
      { turnId: turn.id },
      { signal: abort.signal },
    )) {
      if (update.case === "turn") seen.push(update.value.openQuestions);
      if (update.case === "ended") break;
    }
  })();
  ask(stream, attempt);
  await vi.waitFor(() => expect(seen.at(-1)).toBe(1));
  const { questions } = await replicas.there.clients.runs.listQuestions({ turnId: turn.id, isOpen: true });
  expect(questions).toMatchObject([
    { runId: "", turnId: turn.id, watcherId: run.watcherId, question: { title: "May I push?" } },
  ]);
  // The question belongs to the turn; the continued run is a separate run.
  await expect(clients.runs.answerQuestion({ runId: turn.id, optionId: "yes" })).rejects.toThrow(/no run/);
  await expect(clients.runs.answerQuestion({ runId: run.id, optionId: "yes" })).rejects.toThrow(/no open/);
  await expect(clients.runs.answerQuestion({ optionId: "yes" })).rejects.toThrow(/run_id/);
  const answers = await Promise.allSettled(
    [replicas.here, replicas.there].map((replica, index) =>
      replica.clients.runs.answerQuestion({ turnId: turn.id, optionId: index === 0 ? "yes" : "no" }),
    ),
  );
  expect(answers.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  const told = await stream.next("answer");
  expect(told).toMatchObject({ questionId: "q1", isDefault: false });
  // A repeat, in case the first was lost, says the same.
  for (const repeat of stream.waiting("answer"))
    expect(repeat.message.value).toMatchObject({ questionId: "q1", optionId: told.optionId });
  await vi.waitFor(() => expect(seen.at(-1)).toBe(0));
  const { events } = await clients.events.listEvents({
    pageSize: 50,
    kinds: ["question.asked", "question.answered"],
  });
  const ofTurn = events.filter(({ data }) => data?.turn_id === turn.id);
  expect(ofTurn.map(({ kind }) => kind).sort()).toEqual(["question.answered", "question.asked"]);
  expect(ofTurn.map(({ runId }) => runId)).toEqual(["", ""]);
  const { workId, attemptToken } = attempt;
  stream.send({
    case: "complete",
    value: { workId, attemptToken, outcome: Outcome.COMPLETED, resultText: "Pushed." },
  });
  await watching;
  abort.abort();
});

test("a question of a turn has the policy of its run's watcher, and a deadline within the time for which the turn may wait", async () => {
  const { clients, stream, turn, attempt } = await beginTurn({
    questions: { timeout: durationFromMs(3_600_000), defaultAnswer: QuestionDefault.ALLOW },
  });
  ask(stream, attempt);
  await vi.waitFor(async () => expect(await openOfTurn(turn.id)).toBe(1));
  const { turn: now } = await clients.turns.getTurn({ turnId: turn.id });
  const {
    questions: [question],
  } = await clients.runs.listQuestions({ turnId: turn.id });
  expect(timestampMs(question!.deadlineAt!)).toBeLessThan(timestampMs(now!.expiresAt!) + 3_600_000);
  await sql`update question set deadline_at = now() where work_id = ${turn.id}`.execute(database.db);
  await closeDueOnce(database.db, { asked() {}, answered() {} });
  const { questions } = await clients.runs.listQuestions({ turnId: turn.id });
  expect(questions).toMatchObject([{ state: QuestionState.EXPIRED, optionId: "yes" }]);
});

test("a turn's timeout stands still while its question is open, for an hour at most", async () => {
  const { clients, stream, turn, attempt } = await beginTurn();
  ask(stream, attempt);
  await vi.waitFor(async () => expect(await openOfTurn(turn.id)).toBe(1));
  const sweep = () => sweepTurnsOnce(database.db, { ttlMs: 60_000, isQuiet: false });
  const setBack = (expired: string, asked: string) =>
    sql`with t as (update turn set expires_at = now() - ${expired}::interval, deadline_at = now() + interval '1 min'
        where id = ${turn.id})
      update question set asked_at = now() - ${asked}::interval, deadline_at = now() + interval '1 min'
      where work_id = ${turn.id}`.execute(database.db);
  // The timeout passed 10 minutes ago, and for 20 minutes a person has been asked.
  await setBack("10 min", "20 min");
  expect(await sweep()).toEqual([]);
  // An answer lets the time run again.
  await clients.runs.answerQuestion({ turnId: turn.id, optionId: "yes" });
  expect(await sweep()).toEqual([]);
  await setBack("25 min", "20 min");
  // The replicas sweep, too.
  const untilTimeout = (turnId: string) =>
    vi.waitFor(async () => {
      await sweep();
      expect((await clients.turns.getTurn({ turnId })).turn!.status).toBe(TurnStatus.TIMEOUT);
    });
  await untilTimeout(turn.id);

  const second = await beginTurn();
  ask(second.stream, second.attempt);
  await vi.waitFor(async () => expect(await openOfTurn(second.turn.id)).toBe(1));
  await sql`with t as (update turn set expires_at = now() - interval '61 min', deadline_at = now() + interval '1 min'
      where id = ${second.turn.id})
    update question set asked_at = now() - interval '5 hours', deadline_at = now() + interval '1 min'
    where work_id = ${second.turn.id}`.execute(database.db);
  await untilTimeout(second.turn.id);
});

test("a question of a turn that has ended is withdrawn", async () => {
  const { clients, stream, turn, attempt } = await beginTurn();
  ask(stream, attempt);
  await vi.waitFor(async () => expect(await openOfTurn(turn.id)).toBe(1));
  const { workId, attemptToken } = attempt;
  stream.send({ case: "complete", value: { workId, attemptToken, outcome: Outcome.COMPLETED } });
  await stream.next("completionAck");
  await closeDueOnce(database.db, { asked() {}, answered() {} });
  const { questions } = await clients.runs.listQuestions({ turnId: turn.id });
  expect(questions).toMatchObject([{ state: QuestionState.WITHDRAWN }]);
});

test("what does not fit the question is refused with what does", async () => {
  const { clients, stream, run, attempt } = await begin();
  ask(stream, attempt);
  await isOpen(run.id);
  const answer = (given: object) => clients.runs.answerQuestion({ runId: run.id, optionId: "yes", ...given });
  await expect(answer({ optionId: "maybe" })).rejects.toThrow(/it has yes, always, no/);
  await expect(answer({ text: "hello" })).rejects.toThrow(/takes no text/);
  await expect(answer({ questionId: "q2" })).rejects.toThrow(/has no question "q2"/);
  ask(stream, attempt, "q2");
  await vi.waitFor(async () => expect((await getRun(clients, { workId: run.id })).openQuestions).toBe(2));
  await expect(answer({})).rejects.toThrow(/several questions/);
});

test("a question of an attempt that has ended is withdrawn", async () => {
  const { clients, stream, run, attempt } = await begin();
  ask(stream, attempt);
  await isOpen(run.id);
  await stream.complete(attempt);
  await closeDueOnce(database.db, { asked() {}, answered() {} });
  await vi.waitFor(async () => {
    const { questions } = await clients.runs.listQuestions({ runId: run.id });
    expect(questions).toMatchObject([{ state: QuestionState.WITHDRAWN }]);
  });
});

test("an attempt that is not the device's may not ask, and its agent is not left waiting", async () => {
  const { stream, run } = await begin();
  const other = await begin();
  ask(other.stream, { workId: run.id, attemptToken: other.attempt.attemptToken });
  expect(await other.stream.next("answer")).toMatchObject({ optionId: "no", isDefault: true });
  expect((await replicas.here.clients.runs.listQuestions({ runId: run.id })).questions).toEqual([]);
  expect(stream.waiting("answer")).toEqual([]);
});

test("what an agent does is seen live by those who watch the run, on every replica", async () => {
  const { stream, run, attempt } = await begin();
  const seen: string[] = [];
  const stop = new AbortController();
  const watching = (async () => {
    for await (const { update } of replicas.there.clients.runs.watchRun(
      { runId: run.id },
      { signal: stop.signal },
    )) {
      if (update.case === "activity" && update.value.activity?.body.case === "toolCall") {
        seen.push(
          `${update.value.activity.body.value.title} ${update.value.activity.body.value.input.length}`,
        );
      }
    }
  })().catch(() => {});
  const { workId, attemptToken } = attempt;
  const call = (title: string, input: string) => ({
    sequence: 1n,
    body: { case: "toolCall" as const, value: { id: title, title, input } },
  });
  await vi.waitFor(
    () => {
      stream.send({
        case: "activity",
        value: { workId, attemptToken, activities: [call("small", "ls"), call("large", "é".repeat(4_000))] },
      });
      expect(seen).toEqual(expect.arrayContaining(["small 2", "large 500"]));
    },
    { timeout: 10_000, interval: 200 },
  );
  stop.abort();
  await watching;
});
