/**
 * Through PgBouncer in transaction mode, with LISTEN and migrations on a direct URL, and no setting
 * of PgBouncer changed.
 */
import { randomUUID } from "node:crypto";
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { requireUsableDatabase } from "../../../../src/cli/up/usable-database.ts";
import { openDatabase, transaction } from "../../../../src/store/pg/database.ts";
import { isPooler } from "../../../../src/store/pg/pooled.ts";
import { inCompany } from "../../../../src/store/pg/round-trips.ts";
import { withinOrg } from "../../../../src/store/pg/tenancy.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { isClockFaked } from "../../../support/faketime.ts";
import { missingPgBouncer, type PgBouncer, startPgBouncer } from "../../../support/pgbouncer.ts";
import { startTestReplica } from "../../../support/server.ts";
import { addDevice, addTenant } from "../../../support/tenants.ts";
import { startWork, takeOn, untilStatus } from "../../../support/work.ts";

describe.skipIf(missingPgBouncer())("through PgBouncer", () => {
  const database = useDatabase({ per: "file" });
  let pooler: PgBouncer;
  beforeAll(async () => {
    pooler = await startPgBouncer(database.url);
  });
  afterAll(() => pooler.kill());

  const startPooled = () => startTestReplica(database.url, pooledSettings());
  const pooledSettings = () => ({
    ...{ DATABASE_URL: pooler.url, DATABASE_DIRECT_URL: database.url },
    // A device driven by hand is silent for seconds on a busy machine.
    PINION_HEARTBEAT_TTL_MS: "60000",
  });

  test("the main job: what one replica triggers, the other pushes at once, and its result is stored once", async () => {
    const [called, holder] = [await startPooled(), await startPooled()];
    const device = await enrolDevice(called.clients);
    const stream = await connect(holder.url, device);
    for (let index = 0; index < 10; index += 1) {
      const startedAt = performance.now();
      const { id, watcherId } = await startWork(called.clients, device);
      const assignment = await takeOn(stream);
      expect(assignment.workId).toBe(id);
      // The sweep would take up to 15 s.
      expect(performance.now() - startedAt).toBeLessThan(10_000);
      const ack = await stream.complete(assignment, `result ${index}`);
      const run = await untilStatus(called.clients, { workId: id }, RunStatus.COMPLETED);
      expect(run.windowId).toBe(ack.windowId);
      const { windows } = await called.clients.runs.listWindows({ watcherId });
      expect(windows.map((window) => window.extractedData?.output)).toEqual([`result ${index}`]);
    }
  });

  test("a run that is waiting is cancelled at once, and one that runs is asked to end", async () => {
    const [called, holder] = [await startPooled(), await startPooled()];
    const device = await enrolDevice(called.clients);
    const stream = await connect(holder.url, device);
    await startWork(called.clients, device);
    const running = await takeOn(stream);
    const waiting = await startWork(called.clients, device);
    await called.clients.runs.cancelRun({ runId: waiting.id });
    await untilStatus(called.clients, { workId: waiting.id }, RunStatus.CANCELLED);
    await called.clients.runs.cancelRun({ runId: running.workId });
    expect((await stream.next("cancel")).workId).toBe(running.workId);
  });

  test("orgs that share the same few connections in turn see their own rows alone", async () => {
    const { url } = await startPooled();
    const mark = randomUUID().slice(0, 8);
    const orgs = await Promise.all(
      ["ants", "bees", "crows"].map(async (name) => {
        const orgId = `${name}-${mark}`;
        const tenant = await addTenant(database.db, orgId);
        await addDevice(database.db, tenant, { label: `${orgId}-box` });
        return { orgId, clients: createClients({ url, token: tenant.secret }) };
      }),
    );
    // More than the connections, and few enough that none waits as long as a call may wait for one.
    const callers = Array.from({ length: 30 }, async (_, caller) => {
      const { orgId, clients } = orgs[caller % orgs.length]!;
      for (let call = 0; call < 10; call++) {
        const { devices } = await clients.fleet.listDevices({});
        expect(devices.map((device) => device.label)).toEqual([`${orgId}-box`]);
      }
    });
    await Promise.all(callers);
    // And no setting stays on a connection.
    const pooled = openDatabase({ url: pooler.url, poolMax: 8, isPooled: true });
    onTestFinished(() => pooled.close());
    const left = await Promise.all(
      Array.from({ length: 8 }, () =>
        sql<{ user: string; org: string | null }>`
          select current_user as "user", current_setting('pinion.org', true) as org, pg_sleep(0.05)`.execute(
          pooled.db,
        ),
      ),
    );
    for (const { rows } of left) {
      expect(rows[0]!.user).not.toBe("pinion_server");
      expect(rows[0]!.org || "").toBe("");
    }
  });

  test.skipIf(isClockFaked)(
    "a transaction has its bounds, and leaves none on the connection that others use next",
    async () => {
      const pooled = openDatabase({ url: pooler.url, poolMax: 1, isPooled: true, statementTimeoutMs: 300 });
      onTestFinished(() => pooled.close());
      const bounds = () => sql<Record<string, string>>`
      select current_setting('statement_timeout') as statement,
        current_setting('idle_in_transaction_session_timeout') as idle`;
      expect((await transaction(pooled.db, (tx) => bounds().execute(tx))).rows[0]).toEqual({
        statement: "300ms",
        idle: "30s",
      });
      expect((await bounds().execute(pooled.db)).rows[0]).toEqual({ statement: "0", idle: "0" });
      await expect(transaction(pooled.db, (tx) => sql`select pg_sleep(5)`.execute(tx))).rejects.toThrow(
        "statement timeout",
      );
      expect((await sql<{ one: number }>`select 1 as one`.execute(pooled.db)).rows[0]).toEqual({ one: 1 });
    },
  );

  test("what waits for the commit is committed with it, or nothing is", async () => {
    const pooled = openDatabase({ url: pooler.url, poolMax: 2, isPooled: true });
    onTestFinished(() => pooled.close());
    const add = (tx: typeof pooled.db, id: string, mark = sql``) =>
      sql`${mark} insert into org (id, name) values (${id}, ${id})`.execute(tx);
    await transaction(pooled.db, async (tx) => {
      await add(tx, "waits-1");
      await add(tx, "waits-2", inCompany);
    });
    const failed = transaction(pooled.db, async (tx) => {
      await add(tx, "waits-3");
      await add(tx, "waits-1", inCompany);
    });
    await expect(failed).rejects.toMatchObject({ code: "23505" });
    const seen = await withinOrg("waits-1", () =>
      pooled.tenantDb.selectFrom("org").select("id").where("id", "like", "waits%").execute(),
    );
    expect(seen).toEqual([{ id: "waits-1" }]);
    const all = await pooled.db.selectFrom("org").select("id").where("id", "like", "waits%").execute();
    expect(all.map(({ id }) => id).sort()).toEqual(["waits-1", "waits-2"]);
  });

  test("a pooler that is restarted costs moments, and no run", async () => {
    const own = await startPgBouncer(database.url);
    onTestFinished(() => own.kill());
    const replica = await startTestReplica(database.url, {
      ...pooledSettings(),
      DATABASE_URL: own.url,
      PINION_SWEEP_INTERVAL_MS: "500",
    });
    const device = await enrolDevice(replica.clients);
    const stream = await connect(replica.url, device, { maxConcurrency: 5 });
    const first = await startWork(replica.clients, device);
    const held = await takeOn(stream);
    await own.restart();
    const second = await startWork(replica.clients, device);
    expect((await stream.complete(held)).windowId).not.toBe("");
    const next = await takeOn(stream);
    await stream.complete(next);
    for (const { id } of [first, second]) {
      await untilStatus(replica.clients, { workId: id }, RunStatus.COMPLETED);
    }
  });

  test("the checks before a start pass through it", async () => {
    await requireUsableDatabase(pooler.url);
  });
});

test("a pooler is another place, and not another user or parameter", () => {
  const directUrl = "postgres://owner:x@db:5432/pinion";
  expect(isPooler({ url: directUrl, directUrl })).toBe(false);
  expect(isPooler({ url: "postgres://server:y@db:5432/pinion?sslmode=require", directUrl })).toBe(false);
  expect(isPooler({ url: "postgres://owner:x@db:6432/pinion", directUrl })).toBe(true);
  expect(isPooler({ url: "postgres://owner:x@pooler:5432/pinion", directUrl })).toBe(true);
});
