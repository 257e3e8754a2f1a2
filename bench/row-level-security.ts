/**
 * The cost of row-level security for a request: the same store calls as the database's user and as
 * a user confined to an org, alternating in one run. Prints medians in microseconds and their
 * ratio. `npx node bench/row-level-security.ts`
 */
import { randomUUID } from "node:crypto";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "kysely";
import * as deviceLists from "../src/store/people/devices/device-lists.ts";
import * as devices from "../src/store/people/devices/devices.ts";
import { type Db, openDatabase } from "../src/store/pg/database.ts";
import { startEmbedded } from "../src/store/pg/embedded/cluster.ts";
import { migrate } from "../src/store/pg/migrate.ts";
import { withinOrg } from "../src/store/pg/tenancy.ts";

const orgs = 50;
const devicesPerOrg = 200;
const rounds = 40;
const callsPerRound = 50;
const orgId = "org-7";
const ttlMs = 60_000;

const dataDir = await mkdtemp(join(tmpdir(), "pinion-bench-"));
// As root, PostgreSQL runs as another user, who needs to traverse the directory.
await chmod(dataDir, 0o711);
const embedded = await startEmbedded({ dataDir });
try {
  await migrate(embedded.url);
  const database = openDatabase({ url: embedded.url, poolMax: 4 });
  try {
    await run(database);
  } finally {
    await database.close();
  }
} finally {
  await embedded.stop();
  await rm(dataDir, { recursive: true, force: true });
}

async function run({ db, tenantDb }: { db: Db; tenantDb: Db }): Promise<void> {
  await sql`insert into org (id, name) select 'org-' || i, 'x' from generate_series(1, ${orgs}) i`.execute(
    db,
  );
  await sql`
    insert into device (org_id, install_id, os, label)
    select 'org-' || o, 'i' || i, 'linux', 'device ' || i
    from generate_series(1, ${orgs}) o, generate_series(1, ${devicesPerOrg}) i`.execute(db);
  await sql`analyze`.execute(db);
  const { id: deviceId } = await db
    .selectFrom("device")
    .select("id")
    .where("org_id", "=", orgId)
    .executeTakeFirstOrThrow();

  const calls: Record<string, (on: Db) => Promise<unknown>> = {
    "one row by key": (on) => devices.find(on, { orgId, deviceId }),
    "a page of 50 with liveness": (on) => deviceLists.list(on, { orgId, ttlMs, limit: 50 }),
    "a write in a transaction with its event": (on) =>
      devices.updateLabel(on, { orgId, deviceId, label: randomUUID(), actor: "bench" }),
  };
  console.log(`${cpus()[0]?.model ?? "?"}, ${cpus().length} cores, Node ${process.versions.node}, loopback`);
  for (const [name, call] of Object.entries(calls)) {
    const open: number[] = [];
    const confined: number[] = [];
    for (let round = 0; round < rounds; round++) {
      await time(open, () => call(db));
      await time(confined, () => withinOrg(orgId, () => call(tenantDb)));
    }
    const [a, b] = [median(open), median(confined)];
    console.log(`${name}: ${a} µs without, ${b} µs with; ratio ${(b / a).toFixed(2)}, ${b - a} µs more`);
  }
}

/** The first round of each warms up and is measured as well: a median does not notice. */
async function time(into: number[], call: () => Promise<unknown>): Promise<void> {
  for (let i = 0; i < callsPerRound; i++) {
    const start = performance.now();
    await call();
    into.push(performance.now() - start);
  }
}

function median(values: number[]): number {
  return Math.round(values.toSorted((a, b) => a - b)[values.length >> 1]! * 1_000);
}
