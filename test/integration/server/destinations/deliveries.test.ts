/**
 * Deliveries to destinations: filters, times, signatures, order, retries, and any living replica as
 * the sender.
 */
import { randomUUID } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { sql } from "kysely";
import { Webhook } from "standardwebhooks";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { DeliveryState, type DestinationSpecSchema, NotifyWhen } from "#gen/pinion/v1/destination_pb.js";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { newKey } from "../../../../src/secrets.ts";
import * as alerts from "../../../../src/store/work/messages/alerts.ts";
import * as deliveries from "../../../../src/store/work/messages/deliveries.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice, type Identity } from "../../../support/device.ts";
import { openMailServer, openReceiver, type Received } from "../../../support/receivers.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { takeOn, untilStatus } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
let here: TestReplica;
let there: TestReplica;
let device: Identity;
let stream: DeviceStream;

beforeAll(async () => {
  const env = {
    // The device of the tests sends no heartbeats.
    PINION_HEARTBEAT_TTL_MS: "60000",
    PINION_SECRET_KEYS: newKey(),
    PINION_DESTINATION_NETWORKS: "127.0.0.0/8, ::1",
    PINION_PUBLIC_URL: "https://pinion.example/",
    // The interval at which a replica looks for deliveries left by another replica.
    PINION_SWEEP_INTERVAL_MS: "200",
  };
  here = await openTestReplica(database.url, env);
  there = await openTestReplica(database.url, env);
  device = await enrolDevice(here.clients);
});
afterAll(() => Promise.all([here.stop(), there.stop()]));

async function open(): Promise<DeviceStream> {
  stream = await connect(here.url, device);
  return stream;
}

type Spec = MessageInitShape<typeof DestinationSpecSchema>;

/** Creates a destination without alerts; returns the slug. */
async function addDestination(kind: Spec["kind"], takesAlerts = false) {
  const slug = `to-${randomUUID().slice(0, 8)}`;
  const spec = { name: slug, kind, takesAlerts } as Spec;
  const { destination, signingSecret } = await here.clients.destinations.createDestination({ slug, spec });
  return { slug, id: destination!.id, secret: signingSecret };
}

const webhookAt = (url: string) => ({ case: "webhook", value: { url } }) as const;

async function addWatcher(notify: { to: string; when: NotifyWhen }[], more = {}) {
  const { watcher } = await here.clients.watchers.createWatcher({
    spec: {
      name: `Watch ${randomUUID().slice(0, 8)}`,
      prompt: "look",
      deviceId: device.deviceId,
      notify,
      ...more,
    },
  });
  return watcher!;
}

/** A run of the watcher from its trigger to its end. */
async function run(watcherId: string, output = "done", outcome = Outcome.COMPLETED, reason = "") {
  const { run: made } = await here.clients.watchers.triggerWatcher({ watcherId });
  const attempt = await takeOn(stream);
  await stream.complete(attempt, output, outcome, reason);
  return made!;
}

const until = <T>(fn: () => T | Promise<T>) => vi.waitFor(fn, { interval: 20 });

const kindsOf = (received: readonly Received[]) =>
  received.map(({ body }) => (JSON.parse(body) as { type: string }).type);

async function statesOf(slug: string) {
  const { deliveries: rows } = await here.clients.destinations.listDeliveries({ destinationId: slug });
  return rows;
}

/**
 * The try has ended, and the next one waits: the end of a try would overwrite a change by the test.
 */
function expectEnded({ nextAttemptAt }: { nextAttemptAt?: Timestamp | undefined }): void {
  expect(timestampMs(nextAttemptAt!)).toBeGreaterThan(Date.now());
}

test("a result reaches a webhook once, signed as Standard Webhooks has it, with a link to its run", async () => {
  await open();
  const receiver = await openReceiver();
  const { slug, secret } = await addDestination(webhookAt(`${receiver.url}/hook?x=1`));
  const watcher = await addWatcher([{ to: slug, when: NotifyWhen.ALWAYS }]);
  const made = await run(watcher.id, "all is well");
  await until(() => expect(receiver.received).toHaveLength(1));
  const [{ headers, body, path }] = receiver.received as [Received];
  expect(path).toBe("/hook?x=1");
  const payload = new Webhook(secret).verify(body, headers as Record<string, string>);
  expect(payload).toMatchObject({
    type: "run.completed",
    data: {
      org_id: "local",
      url: `https://pinion.example/#/runs/${made.id}`,
      when: "always",
      watcher: { id: watcher.id, slug: watcher.slug },
      run: { id: made.id, status: "completed", attempt: 1, device: { id: device.deviceId } },
      result: { text: "", output: "all is well", is_truncated: false },
    },
  });
  const [delivery] = await until(async () => {
    const rows = await statesOf(slug);
    expect(rows[0]?.state).toBe(DeliveryState.DELIVERED);
    return rows;
  });
  expect(delivery).toMatchObject({ id: headers["webhook-id"], runId: made.id, attempts: 1, lastStatus: 200 });
  const { destination } = await here.clients.destinations.getDestination({ destinationId: slug });
  expect(destination).toMatchObject({ pendingDeliveries: 0, deadDeliveries: 0, lastError: "" });
  expect(JSON.stringify(destination, (_, it) => (typeof it === "bigint" ? String(it) : it))).not.toContain(
    secret,
  );
});

test("each watcher's entries say what is told, one message for each destination at most", async () => {
  await open();
  const receiver = await openReceiver();
  const whens = ["always", "failure", "recovery", "change", "attention"] as const;
  const all = [
    NotifyWhen.ALWAYS,
    NotifyWhen.FAILURE,
    NotifyWhen.RECOVERY,
    NotifyWhen.CHANGE,
    NotifyWhen.ATTENTION,
  ];
  const slugs = await Promise.all(
    whens.map(async (when) => (await addDestination(webhookAt(`${receiver.url}/${when}`))).slug),
  );
  const both = await addDestination(webhookAt(`${receiver.url}/both`));
  const watcher = await addWatcher([
    ...all.map((when, index) => ({ to: slugs[index]!, when })),
    { to: both.slug, when: NotifyWhen.CHANGE },
    { to: both.slug, when: NotifyWhen.ALWAYS },
  ]);
  const told = async (output: string, outcome = Outcome.COMPLETED) => {
    const { run: made } = await here.clients.watchers.triggerWatcher({ watcherId: watcher.id });
    const attempt = await takeOn(stream);
    await stream.complete(attempt, output, outcome, outcome === Outcome.FAILED ? "it broke" : "");
    const { rows } = await sql<{ slug: string }>`
      select t.slug from delivery d join destination t on t.id = d.destination_id where d.run_id = ${made!.id}`.execute(
      database.db,
    );
    return rows.map(({ slug }) => (slug === both.slug ? "both" : whens[slugs.indexOf(slug)])).sort();
  };
  expect(await told("one")).toEqual(["always", "both", "change"]);
  expect(await told("one")).toEqual(["always", "both"]);
  expect(await told("two")).toEqual(["always", "both", "change"]);
  expect(await told("", Outcome.FAILED)).toEqual(["always", "both", "failure"]);
  expect(await told("two")).toEqual(["always", "both", "recovery"]);
  expect(await told("two")).toEqual(["always", "both"]);
  // A watcher without destinations makes no deliveries.
  const quiet = await addWatcher([]);
  await run(quiet.id);
  const { rows } = await sql`select 1 from delivery where watcher_id = ${quiet.id}`.execute(database.db);
  expect(rows).toEqual([]);
});

test("a receiver that answers 500 and then 200 gets the same id twice, and what came later waits its turn", async () => {
  await open();
  const receiver = await openReceiver();
  receiver.behave(500, 200);
  const { slug } = await addDestination(webhookAt(receiver.url));
  const watcher = await addWatcher([{ to: slug, when: NotifyWhen.ALWAYS }]);
  const first = await run(watcher.id, "first");
  const [failed] = await until(async () => {
    const rows = await statesOf(slug);
    expect(rows[0]).toMatchObject({ state: DeliveryState.PENDING, attempts: 1, lastStatus: 500 });
    return rows;
  });
  expect(failed!.lastError).toBe("answered 500: no");
  const second = await run(watcher.id, "second");
  await until(async () => expect(await statesOf(slug)).toHaveLength(2));
  // The time of the next try is in the future; nothing overtakes meanwhile.
  expect(receiver.received).toHaveLength(1);
  await sql`update delivery set next_at = now() where id = ${failed!.id}`.execute(database.db);
  await until(() => expect(receiver.received).toHaveLength(3));
  const ids = receiver.received.map(({ headers }) => headers["webhook-id"]);
  expect(ids[1]).toBe(ids[0]);
  const runs = receiver.received.map(({ body }) => JSON.parse(body).data.run.id);
  expect(runs).toEqual([first.id, first.id, second.id]);
});

test("a destination that is slow or dead holds up no other one, and no run", async () => {
  await open();
  const slow = await openReceiver();
  // The endpoint never answers.
  slow.behave(() => {});
  const quick = await openReceiver();
  const slowOne = await addDestination(webhookAt(slow.url));
  const quickOne = await addDestination(webhookAt(quick.url));
  const down = await addDestination(webhookAt("http://127.0.0.1:9"));
  const watchers = [];
  for (let count = 0; count < 8; count += 1) {
    watchers.push(
      await addWatcher([slowOne, down, quickOne].map(({ slug }) => ({ to: slug, when: NotifyWhen.ALWAYS }))),
    );
  }
  for (const watcher of watchers) await run(watcher.id);
  await until(() => expect(quick.received).toHaveLength(watchers.length));
  // At most a few tries at a time wait for one destination.
  expect(slow.received.length).toBeLessThanOrEqual(8);
  const { lastError } = await until(async () => {
    const row = (await here.clients.destinations.getDestination({ destinationId: down.slug })).destination!;
    expect(row.lastError).toContain("ECONNREFUSED");
    return row;
  });
  expect(lastError).not.toContain("\n");
  await slow.close();
});

test("what a replica claimed that died is sent by another one once the lease has run out, under the same id", async () => {
  await open();
  const receiver = await openReceiver();
  const { slug, id } = await addDestination(webhookAt(receiver.url));
  // The row of a run that just ended, before any replica was woken.
  const lost = randomUUID();
  const written = await sql<{ id: string }>`
    insert into delivery (org_id, destination_id, lane, kind, subject, lease_token, lease_until, attempts)
    values ('local', ${id}, ${lost}, 'watcher.paused', '{"reason": "x", "consecutiveFailures": 3}', ${lost},
      now() + interval '700 ms', 1) returning id`.execute(database.db);
  await until(() => expect(receiver.received).toHaveLength(1));
  expect(receiver.received[0]!.headers["webhook-id"]).toBe(written.rows[0]!.id);
  const [row] = await until(async () => {
    const rows = await statesOf(slug);
    expect(rows[0]!.state).toBe(DeliveryState.DELIVERED);
    return rows;
  });
  expect(row!.attempts).toBe(2);
  // The end of the lost try is ignored.
  const late = { orgId: "local", id: row!.id, leaseToken: lost, destinationId: id };
  expect(await deliveries.end(database.db, { ...late, state: "dead", status: 500, error: "x" })).toBe(false);
});

test("two replicas that claim at once send each delivery once", async () => {
  const receiver = await openReceiver();
  const { slug, id } = await addDestination(webhookAt(receiver.url));
  await sql`
    insert into delivery (org_id, destination_id, lane, kind, subject)
    select 'local', ${id}, gen_random_uuid(), 'device.away', jsonb_build_object('label', n) from generate_series(1, 60) n
  `.execute(database.db);
  await until(async () => {
    const rows = await statesOf(slug);
    expect(rows.every((row) => row.state === DeliveryState.DELIVERED)).toBe(true);
  });
  const ids = receiver.received.map(({ headers }) => headers["webhook-id"]);
  expect(ids).toHaveLength(60);
  expect(new Set(ids).size).toBe(60);
});

test("what nobody takes for three days, or the receiver refuses for good, is dead, is told, and can be replayed", async () => {
  await open();
  const receiver = await openReceiver();
  receiver.behave(503, 410, 200);
  const { slug } = await addDestination(webhookAt(receiver.url));
  const watcher = await addWatcher([{ to: slug, when: NotifyWhen.ALWAYS }]);
  await run(watcher.id, "old");
  const [old] = await until(async () => {
    const rows = await statesOf(slug);
    expect(rows[0]!.attempts).toBe(1);
    expectEnded(rows[0]!);
    return rows;
  });
  receiver.behave(503);
  // By a wrong clock of the database, or an absence of all replicas: few tries give up nothing.
  await sql`update delivery set since = now() - interval '9 days', next_at = now() where id = ${old!.id}`.execute(
    database.db,
  );
  await until(async () => {
    const [row] = await statesOf(slug);
    expect(row).toMatchObject({ attempts: 2, state: DeliveryState.PENDING });
    expectEnded(row!);
  });
  await sql`update delivery set since = now() - interval '3 days', attempts = 30, next_at = now() where id = ${old!.id}`.execute(
    database.db,
  );
  await until(async () => expect((await statesOf(slug))[0]!.state).toBe(DeliveryState.DEAD));
  receiver.behave(410, 200);
  await run(watcher.id, "gone");
  await until(async () => {
    expect((await statesOf(slug)).map((row) => row.state)).toEqual([DeliveryState.DEAD, DeliveryState.DEAD]);
  });
  const { events } = await here.clients.events.listEvents({ kinds: ["delivery.dead"] });
  expect(events.map(({ data }) => data)).toMatchObject([
    { attempts: 1, reason: expect.stringContaining("410") },
    { delivery_id: old!.id, attempts: 31 },
  ]);
  const before = receiver.received.length;
  const { replayed } = await there.clients.destinations.replayDeliveries({ destinationId: slug });
  expect(replayed).toBe(2);
  await until(() => expect(receiver.received).toHaveLength(before + 2));
  expect(receiver.received.slice(before)[0]!.headers["webhook-id"]).toBe(old!.id);
  await until(async () =>
    expect((await statesOf(slug)).every((row) => row.state === DeliveryState.DELIVERED)).toBe(true),
  );
  await expect(here.clients.destinations.replayDeliveries({ deliveryIds: [randomUUID()] })).rejects.toThrow(
    /there is no delivery/,
  );
});

test("a rotated secret signs beside the old one for the overlap", async () => {
  const receiver = await openReceiver();
  const { slug, secret } = await addDestination(webhookAt(receiver.url));
  const rotated = await here.clients.destinations.rotateDestinationSecret({ destinationId: slug });
  await here.clients.destinations.testDestination({ destinationId: slug });
  const [{ body, headers }] = receiver.received as [Received];
  for (const known of [secret, rotated.signingSecret]) {
    expect(new Webhook(known).verify(body, headers as Record<string, string>)).toMatchObject({
      type: "destination.test",
    });
  }
  await here.clients.destinations.rotateDestinationSecret({ destinationId: slug, overlap: { seconds: 0n } });
  await here.clients.destinations.testDestination({ destinationId: slug });
  const last = receiver.received.at(-1)!;
  expect(() =>
    new Webhook(rotated.signingSecret).verify(last.body, last.headers as Record<string, string>),
  ).toThrow();
});

test("a test says at once what became of it", async () => {
  const receiver = await openReceiver();
  receiver.behave(401, 200);
  const { slug } = await addDestination(webhookAt(receiver.url));
  const first = await there.clients.destinations.testDestination({ destinationId: slug });
  expect(first.delivery).toMatchObject({
    state: DeliveryState.DEAD,
    lastStatus: 401,
    lastError: "answered 401: no",
  });
  const second = await here.clients.destinations.testDestination({ destinationId: slug });
  expect(second.delivery).toMatchObject({ state: DeliveryState.DELIVERED, kind: "destination.test" });
});

test("Slack gets mrkdwn, by an incoming webhook and by a bot, and what an agent wrote calls nobody", async () => {
  await open();
  const slack = await openReceiver();
  const incoming = await addDestination({
    case: "slack",
    value: {
      access: {
        case: "webhookUrl",
        value: { kind: { case: "value", value: `${slack.url}/services/T0/B0/x` } },
      },
    },
  });
  const bot = await addDestination({
    case: "slack",
    value: {
      access: { case: "botToken", value: { kind: { case: "value", value: "xoxb-secret" } } },
      channel: "#ops",
      apiUrl: `${slack.url}/api`,
    },
  });
  slack.behave((answer, { path }) => {
    answer.writeHead(200, { "content-type": "application/json" });
    answer.end(path.startsWith("/api") ? JSON.stringify({ ok: true, ts: "1" }) : "ok");
  });
  const watcher = await addWatcher(
    [incoming, bot].map(({ slug }) => ({ to: slug, when: NotifyWhen.ALWAYS })),
  );
  const { run: made } = await here.clients.watchers.triggerWatcher({ watcherId: watcher.id });
  const attempt = await takeOn(stream);
  stream.send({
    case: "complete",
    value: {
      ...{
        workId: attempt.workId,
        attemptToken: attempt.attemptToken,
        outcome: Outcome.COMPLETED,
        output: "",
      },
      resultText: "**Two** issues, see [the list](https://example.org/list)\n\n<!channel> <@U1>",
    },
  });
  await until(() => expect(slack.received).toHaveLength(2));
  for (const { body, path, headers } of slack.received) {
    const message = JSON.parse(body) as {
      channel?: string;
      text: string;
      blocks: { text?: { text: string } }[];
    };
    const text = message.blocks[1]!.text!.text;
    expect(text).toContain("*Two*");
    expect(text).toContain("<https://example.org/list|the list>");
    expect(text).not.toContain("<!channel>");
    expect(text).not.toContain("<@U1>");
    expect(body).toContain(`<https://pinion.example/#/runs/${made!.id}|Open in Pinion>`);
    if (path === "/api/chat.postMessage") {
      expect(message.channel).toBe("#ops");
      expect(headers.authorization).toBe("Bearer xoxb-secret");
    } else expect(path).toBe("/services/T0/B0/x");
  }
  slack.behave((answer) =>
    answer.writeHead(200).end(JSON.stringify({ ok: false, error: "channel_not_found" })),
  );
  const { delivery } = await here.clients.destinations.testDestination({ destinationId: bot.slug });
  expect(delivery).toMatchObject({
    state: DeliveryState.DEAD,
    lastError: "Slack refused it: channel_not_found",
  });
});

test("mail arrives as clean HTML with a text part, under an id that stays", async () => {
  await open();
  const { url, mails } = await openMailServer({ password: "s3cret" });
  const smtp = url.replace("smtp://", "smtp://pinion:s3cret@");
  const { slug } = await addDestination({
    case: "email",
    value: {
      to: ["ada@example.org", "ben@example.org"],
      from: "pinion@example.org",
      smtpUrl: { kind: { case: "value", value: smtp } },
    },
  });
  const watcher = await addWatcher([{ to: slug, when: NotifyWhen.ALWAYS }]);
  await here.clients.watchers.triggerWatcher({ watcherId: watcher.id });
  const attempt = await takeOn(stream);
  stream.send({
    case: "complete",
    value: {
      ...{
        workId: attempt.workId,
        attemptToken: attempt.attemptToken,
        outcome: Outcome.COMPLETED,
        output: "",
      },
      resultText:
        "# Found\n\n- one\n\n<script>alert(1)</script><img src=https://evil.example/x>\n\n[x](javascript:alert(1))",
    },
  });
  await until(() => expect(mails).toHaveLength(1));
  const [mail] = mails as [(typeof mails)[0]];
  expect(mail.subject).toBe(`${watcher.spec!.name}: completed`);
  expect(mail.html).toContain("<li>one</li>");
  expect(mail.html).not.toMatch(/<script|<img|href="javascript/);
  expect(mail.text).toContain("# Found");
  expect(mail.text).toContain("https://pinion.example/#/runs/");
  const [row] = await statesOf(slug);
  expect(mail.messageId).toBe(`<${row!.id}@example.org>`);
});

test("a mail server that refuses says why, and no password is told", async () => {
  const { url } = await openMailServer({ password: "s3cret" });
  const smtp = url.replace("smtp://", "smtp://pinion:wr0ng@");
  const { slug } = await addDestination({
    case: "email",
    value: {
      to: ["ada@example.org"],
      from: "pinion@example.org",
      smtpUrl: { kind: { case: "value", value: smtp } },
    },
  });
  const { delivery } = await here.clients.destinations.testDestination({ destinationId: slug });
  expect(delivery!.lastError).toMatch(/the mail server did not let us in: 535/);
  expect(delivery!.lastError).not.toContain("wr0ng");
});

test("port 0, and a percent sign of a password that is not written as %25, are refused when the destination is named", async () => {
  const mailbox = (smtp: string) =>
    addDestination({
      case: "email",
      value: {
        to: ["ada@example.org"],
        from: "pinion@example.org",
        smtpUrl: { kind: { case: "value", value: smtp } },
      },
    });
  await expect(mailbox("smtp://pinion:50%off@127.0.0.1:2525")).rejects.toThrow(
    'spec.email.smtp_url: its name or password has a "%" that must be written as %25',
  );
  await expect(mailbox("smtp://127.0.0.1:0")).rejects.toThrow(
    "spec.email.smtp_url: nothing listens on port 0",
  );
  await expect(addDestination({ case: "webhook", value: { url: "http://127.0.0.1:0/" } })).rejects.toThrow(
    "spec.webhook.url: nothing listens on port 0",
  );
  const { url } = await openMailServer({ password: "50%off" });
  const { slug } = await mailbox(url.replace("smtp://", "smtp://pinion:50%25off@"));
  const { delivery } = await here.clients.destinations.testDestination({ destinationId: slug });
  expect(delivery!.lastError).toBe("");
});

test("a question is told when it is asked", async () => {
  await open();
  const receiver = await openReceiver();
  const { slug } = await addDestination(webhookAt(receiver.url));
  const watcher = await addWatcher([{ to: slug, when: NotifyWhen.QUESTION }]);
  await here.clients.watchers.triggerWatcher({ watcherId: watcher.id });
  const attempt = await takeOn(stream);
  // Accepts are written in batches.
  await untilStatus(here.clients, attempt, RunStatus.RUNNING);
  stream.send({
    case: "question",
    value: {
      workId: attempt.workId,
      attemptToken: attempt.attemptToken,
      question: { id: "q1", title: "May I push?", options: [{ id: "yes", label: "Yes", kind: 1 }] },
    },
  });
  await until(() => expect(receiver.received).toHaveLength(1));
  expect(JSON.parse(receiver.received[0]!.body)).toMatchObject({
    type: "question.asked",
    data: { when: "question", question: { id: "q1", title: "May I push?" }, run: { status: "running" } },
  });
  await stream.complete(attempt);
  expect(receiver.received).toHaveLength(1);
});

test("a watcher that is paused after failures is told to every destination that takes alerts", async () => {
  await open();
  const receiver = await openReceiver();
  const { slug } = await addDestination(webhookAt(receiver.url), true);
  const watcher = await addWatcher([]);
  await sql`update watcher set consecutive_failures = 9 where id = ${watcher.id}`.execute(database.db);
  await run(watcher.id, "", Outcome.FAILED, "the tenth");
  await until(() => expect(kindsOf(receiver.received)).toEqual(["watcher.paused"]));
  expect(JSON.parse(receiver.received[0]!.body).data).toMatchObject({
    consecutive_failures: 10,
    reason: "the tenth",
    watcher: { slug: watcher.slug },
  });
  await here.clients.destinations.deleteDestination({ destinationId: slug });
});

test("a device that was away for a day, and a budget that is used up, are told once", async () => {
  const receiver = await openReceiver();
  const { slug } = await addDestination(webhookAt(receiver.url), true);
  const gone = await enrolDevice(here.clients, "gone");
  await sql`
    insert into presence (org_id, device_id, epoch, last_beat_at)
    values ('local', ${gone.deviceId}, 1, now() - interval '25 hours')`.execute(database.db);
  const { transaction } = await import("../../../../src/store/pg/database.ts");
  expect(await transaction(database.db, (tx) => alerts.alertAway(tx))).toBe(1);
  expect(await transaction(database.db, (tx) => alerts.alertAway(tx))).toBe(0);
  const budget = {
    ...{ orgId: "local", watcherId: null, kind: "budget.reached" as const },
    subject: { reason: "5 of 5 tokens", day: "2026-12-01" },
    onceKey: "budget x 2026-12-01",
  };
  expect(await transaction(database.db, (tx) => alerts.alert(tx, [budget, budget]))).toBe(1);
  expect(await transaction(database.db, (tx) => alerts.alert(tx, [budget]))).toBe(0);
  await until(() => expect(kindsOf(receiver.received).sort()).toEqual(["budget.reached", "device.away"]));
  await here.clients.destinations.deleteDestination({ destinationId: slug });
});

test("a destination that watchers notify is not deleted, and one that is not there is not named", async () => {
  const receiver = await openReceiver();
  const { slug, id } = await addDestination(webhookAt(receiver.url));
  const watcher = await addWatcher([{ to: slug, when: NotifyWhen.ALWAYS }]);
  await expect(here.clients.destinations.deleteDestination({ destinationId: slug })).rejects.toThrow(
    watcher.slug,
  );
  await expect(addWatcher([{ to: "nowhere", when: NotifyWhen.ALWAYS }])).rejects.toThrow(
    /no destination "nowhere"/,
  );
  // An id becomes the slug.
  const byId = await addWatcher([{ to: id, when: NotifyWhen.FAILURE }]);
  expect(byId.spec!.notify).toMatchObject([{ to: slug, when: NotifyWhen.FAILURE }]);
  for (const { id: watcherId } of [watcher, byId]) {
    await here.clients.watchers.updateWatcher({ watcherId, spec: {}, updateMask: { paths: ["notify"] } });
  }
  await here.clients.destinations.deleteDestination({ destinationId: slug });
});
