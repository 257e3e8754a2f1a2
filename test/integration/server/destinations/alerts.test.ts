/**
 * What concerns the whole org reaches its admins by itself: a watcher paused after failures, a
 * device away for a day, a used-up budget. Each from its cause to the mailbox and the webhook.
 */
import { sql } from "kysely";
import { beforeAll, expect, test, vi } from "vitest";
import { NotifyWhen } from "#gen/pinion/v1/destination_pb.js";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import { RunStatus, SkipReason } from "#gen/pinion/v1/run_pb.js";
import { newKey } from "../../../../src/secrets.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice, type Identity } from "../../../support/device.ts";
import { openMailServer, openReceiver, type Receiver } from "../../../support/receivers.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { takeOn } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const env = {
  PINION_HEARTBEAT_TTL_MS: "60000",
  PINION_SECRET_KEYS: newKey(),
  PINION_DESTINATION_NETWORKS: "127.0.0.0/8",
  PINION_PAUSE_AFTER_FAILURES: "2",
  PINION_SWEEP_INTERVAL_MS: "200",
};
let replica: TestReplica;
let device: Identity;
let stream: DeviceStream;

beforeAll(async () => {
  replica = await openTestReplica(database.url, env);
  device = await enrolDevice(replica.clients, "mac-7");
  await replica.clients.orgs.addMember({ email: "admin@example.org", role: MemberRole.ADMIN });
  await replica.clients.orgs.addMember({ email: "member@example.org", role: MemberRole.MEMBER });
  return () => replica.stop();
});

/** A webhook and a mailbox of the org's admins, both as destinations are by default. */
async function destinations(name: string) {
  const receiver = await openReceiver();
  const { url, mails } = await openMailServer();
  const smtpUrl = { kind: { case: "value" as const, value: url } };
  for (const [slug, kind] of [
    [`${name}-hook`, { case: "webhook", value: { url: receiver.url } }],
    [`${name}-mail`, { case: "email", value: { from: "pinion@example.org", smtpUrl } }],
  ] as const) {
    await replica.clients.destinations.createDestination({
      slug,
      spec: { name: slug, takesAlerts: true, kind },
    });
  }
  const remove = async () => {
    for (const kind of ["hook", "mail"])
      await replica.clients.destinations.deleteDestination({ destinationId: `${name}-${kind}` });
  };
  return { receiver, mails, remove };
}

async function open(): Promise<void> {
  stream = await connect(replica.url, device);
}

const until = <T>(fn: () => T | Promise<T>) => vi.waitFor(fn, { interval: 20 });
const told = ({ received }: Receiver) =>
  received.map(({ body }) => JSON.parse(body) as { type: string; data: Record<string, unknown> });

async function watcherOf(spec: object) {
  const { watcher } = await replica.clients.watchers.createWatcher({
    spec: { name: `Alerts ${Math.random()}`, prompt: "look", deviceId: device.deviceId, ...spec },
  });
  return watcher!;
}

async function failOnce(watcherId: string) {
  await replica.clients.watchers.triggerWatcher({ watcherId });
  await stream.complete(await takeOn(stream), "", Outcome.FAILED, "it broke");
}

/** Puts the watcher's next slot to this moment, and has the materializer look. */
async function slotNow(watcherId: string) {
  await sql`update schedule_position set next_due_at = now(), next_slot_at = now() where watcher_id = ${watcherId}`.execute(
    database.db,
  );
  const other = await watcherOf({ schedule: "0 0 1 1 *" });
  await replica.clients.watchers.deleteWatcher({ watcherId: other.id });
}

test("a watcher that fails until it is paused is told to the admins, and to no member", async () => {
  await open();
  const { receiver, mails, remove } = await destinations("paused");
  const watcher = await watcherOf({});
  await failOnce(watcher.id);
  expect(receiver.received).toEqual([]);
  await failOnce(watcher.id);
  await until(() => expect(told(receiver)).toMatchObject([{ type: "watcher.paused" }]));
  expect(told(receiver)[0]!.data).toMatchObject({ consecutive_failures: 2, watcher: { slug: watcher.slug } });
  await until(() => expect(mails).toHaveLength(1));
  expect(mails[0]!.subject).toMatch(/paused/);
  const to = [mails[0]!.to].flat().flatMap((one) => one?.value ?? []);
  expect(to.map(({ address }) => address)).toContain("admin@example.org");
  expect(JSON.stringify(to)).not.toContain("member@example.org");
  await remove();
});

test("a used-up budget is told once a day, with the first slot that it cost", async () => {
  await open();
  const { receiver, remove } = await destinations("budget");
  const watcher = await watcherOf({ dayBudget: { tokensMax: 100n }, schedule: "0 0 1 1 *" });
  await replica.clients.watchers.triggerWatcher({ watcherId: watcher.id });
  const { workId, attemptToken } = await takeOn(stream);
  const usage = { inputTokens: 90n, outputTokens: 20n };
  stream.send({
    case: "complete",
    value: { workId, attemptToken, outcome: Outcome.COMPLETED, output: "x", resultText: "x", usage },
  });
  await stream.next("completionAck");
  for (const count of [1, 2]) {
    await slotNow(watcher.id);
    await until(async () => {
      const { runs } = await replica.clients.runs.listRuns({ watcherId: watcher.id });
      const skipped = runs.filter(({ status }) => status === RunStatus.SKIPPED);
      expect(skipped.map(({ skipReason }) => skipReason)).toEqual(Array(count).fill(SkipReason.BUDGET));
    });
  }
  await until(() => expect(told(receiver)).toMatchObject([{ type: "budget.reached" }]));
  await remove();
  expect(told(receiver)).toHaveLength(1);
});

test("a device that is away for a day is told once, by whichever replica looks first", async () => {
  const { receiver, remove } = await destinations("away");
  const gone = await enrolDevice(replica.clients, "gone");
  await sql`insert into presence (org_id, device_id, epoch, last_beat_at)
    values ('local', ${gone.deviceId}, 1, now() - interval '25 hours')`.execute(database.db);
  // A replica looks when it starts, and then every ten minutes.
  for (let start = 0; start < 2; start++) {
    const other = await openTestReplica(database.url, env);
    await until(() => expect(told(receiver)).toMatchObject([{ type: "device.away" }]));
    await other.stop();
  }
  expect(told(receiver)[0]!.data).toMatchObject({ device: { label: "gone" } });
  await remove();
});

test("change compares the data of results, whatever the order of its keys; recovery is told once after failures", async () => {
  await open();
  const receiver = await openReceiver();
  const schema = { type: "object", properties: { a: { type: "number" }, b: { type: "array" } } };
  for (const slug of ["changes", "recoveries"]) {
    await replica.clients.destinations.createDestination({
      slug,
      spec: {
        name: slug,
        takesAlerts: false,
        kind: { case: "webhook", value: { url: `${receiver.url}/${slug}` } },
      },
    });
  }
  const watcher = await watcherOf({
    extractionSchema: schema,
    notify: [
      { to: "changes", when: NotifyWhen.CHANGE },
      { to: "recoveries", when: NotifyWhen.RECOVERY },
    ],
  });
  const end = async (structured: object | undefined, resultText: string) => {
    const { run } = await replica.clients.watchers.triggerWatcher({ watcherId: watcher.id });
    const { workId, attemptToken } = await takeOn(stream);
    const outcome = structured ? Outcome.COMPLETED : Outcome.FAILED;
    const reason = structured ? "" : "it broke";
    stream.send({
      case: "complete",
      value: {
        workId,
        attemptToken,
        outcome,
        output: resultText,
        resultText,
        reason,
        ...(structured ? { structured: JSON.stringify(structured) } : {}),
      } as never,
    });
    await stream.next("completionAck");
    const { rows } = await sql<{ slug: string }>`
      select t.slug from delivery d join destination t on t.id = d.destination_id where d.run_id = ${run!.id} order by 1`.execute(
      database.db,
    );
    return rows.map(({ slug }) => slug);
  };
  expect(await end({ a: 1, b: [1, 2] }, "first")).toEqual(["changes"]);
  expect(await end({ b: [1, 2], a: 1 }, "in other words")).toEqual([]);
  expect(await end({ a: 1, b: [2, 1] }, "in other words")).toEqual(["changes"]);
  expect(await end(undefined, "")).toEqual([]);
  // The data is that of the last result, from before the failure.
  expect(await end({ a: 1, b: [2, 1] }, "again")).toEqual(["recoveries"]);
  expect(await end({ a: 1, b: [2, 1] }, "again")).toEqual([]);
});
