/**
 * A database whose disk is full: results wait at their devices, no watcher is paused or failed
 * because of the disk, and all results are stored later.
 */
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "kysely";
import { expect, test } from "vitest";
import { createEndings } from "../../../src/scheduler/endings/endings.ts";
import { reapOnce } from "../../../src/scheduler/endings/reaper.ts";
import { runEndings } from "../../../src/scheduler/endings/run-endings.ts";
import { materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import type { Db } from "../../../src/store/pg/database.ts";
import { isPassing } from "../../../src/store/pg/failures.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import { noticeSkipped } from "../../support/notice.ts";
import {
  ageRun,
  findRun,
  findWatcher,
  hourly,
  listRuns,
  listWindows,
  openDevice,
  putSchedule,
  reapRules,
  reportOf,
  seedDevice,
  seedRunning,
  seedWatcher,
} from "../../support/rows.ts";
import { noteDoorbell, policy } from "../../support/surroundings.ts";

const database = useDatabase();
const log = createLogger({ name: "test", level: "silent" });

/** Whether disks can be mounted here. */
function canMount(): boolean {
  const path = mkdtempSync(join(tmpdir(), "pinion-mount-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", path], { stdio: "ignore" });
    execFileSync("umount", [path]);
    return true;
  } catch {
    return false;
  } finally {
    rmSync(path, { recursive: true, force: true });
  }
}

type Disk = AsyncDisposable & { tablespace: string; mend(): void };

/**
 * A disk of `mebibytes` MiB for these tables, within the test; the WAL stays on its disk. `mend`
 * enlarges the disk.
 */
async function putOnDisk(db: Db, tables: readonly string[], mebibytes: number): Promise<Disk> {
  const { rows } = await sql<{ dir: string }>`select current_setting('data_directory') as dir`.execute(db);
  const { uid, gid } = statSync(rows[0]!.dir);
  const disk = mkdtempSync("/var/tmp/pinion-disk-");
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${mebibytes}m,mode=711`, "tmpfs", disk]);
  const place = join(disk, "space");
  mkdirSync(place, { mode: 0o700 });
  chownSync(place, uid, gid);
  chmodSync(disk, 0o711);
  const tablespace = `full_${randomUUID().slice(0, 8)}`;
  await sql`create tablespace ${sql.ref(tablespace)} location ${sql.lit(place)}`.execute(db);
  const move = async (to: string) => {
    for (const table of tables)
      await sql`alter table ${sql.table(table)} set tablespace ${sql.ref(to)}`.execute(db);
  };
  await move(tablespace);
  return {
    tablespace,
    mend: () => execFileSync("mount", ["-o", "remount,size=256m", disk]),
    async [Symbol.asyncDispose]() {
      await move("pg_default");
      await sql`drop tablespace ${sql.ref(tablespace)}`.execute(db);
      execFileSync("umount", ["-l", disk]);
      rmSync(disk, { recursive: true, force: true });
    },
  };
}

/** The partitions of the ended runs; the present day's takes what ends now. */
async function endedTables(db: Db): Promise<string[]> {
  const { rows } = await sql<{ name: string }>`
    select inhrelid::regclass::text as name from pg_inherits where inhparent = 'run_finished'::regclass`.execute(
    db,
  );
  return rows.map(({ name }) => name);
}

/** Incompressible text. */
const noise = (bytes: number) =>
  Array.from({ length: bytes / 8 }, () => Math.random().toString(36).slice(2, 10).padEnd(8, "0")).join("");

const isMountable = canMount();
if (!isMountable) noticeSkipped("a database whose disk is full", "disks can only be mounted as root");

test.skipIf(!isMountable)(
  "while the disk is full no result is called invalid, and with room again every one is stored",
  async () => {
    const { db } = database;
    await using disk = await putOnDisk(db, await endedTables(db), 4);
    const seeded = [];
    for (let i = 0; i < 12; i++) seeded.push(await seedRunning(db));
    const completer = createEndings(runEndings({ policy, doorbell: noteDoorbell() }), { db, log });
    const reports = seeded.map(({ run }) => reportOf(run, { output: noise(900_000) }));
    const results = await Promise.allSettled(reports.map((report) => completer.report(report)));
    const failures = results.filter((result) => result.status === "rejected");
    expect(failures.length).toBeGreaterThan(0);
    for (const { reason } of failures) {
      expect(reason).toMatchObject({ code: "53100" });
      expect(isPassing(reason)).toBe(true);
    }
    disk.mend();
    // Like a device: unanswered reports are sent again.
    const again = await Promise.all(reports.map((report) => completer.report(report)));
    for (const { verdict } of again) expect(["stored", "already_stored"]).toContain(verdict);
    for (const { run } of seeded) {
      expect(await findRun(db, run)).toMatchObject({ status: "completed" });
      expect(await listWindows(db, run)).toHaveLength(1);
    }
  },
  60_000,
);

test.skipIf(!isMountable)(
  "while the disk is full no watcher is paused and no run is failed; its slots are recorded once there is room",
  async () => {
    const { db } = database;
    const device = await seedDevice(db);
    await openDevice(db, device);
    const { schedule, slot } = hourly();
    const lost = await seedRunning(db);
    const watchers = [];
    // More rows than fit into the table's page.
    for (let i = 0; i < 60; i++) {
      const watcher = await seedWatcher(db, device, { schedule });
      await putSchedule(db, watcher, slot(0));
      watchers.push(watcher);
    }
    await using disk = await putOnDisk(db, ["run"], 1);
    await sql`create table ballast (text text) tablespace ${sql.ref(disk.tablespace)}`.execute(db);
    for (let full = false; !full; ) {
      full = await sql`insert into ballast select repeat(md5(random()::text), 40) from generate_series(1, 50)`
        .execute(db)
        .then(
          () => false,
          () => true,
        );
    }
    const pass = () => materializeOnce(db, { doorbell: noteDoorbell(), log });
    await ageRun(db, lost.run, { last_beat_at: reapRules.silentAttemptMs + 1 });
    const failed = await pass().then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(failed).toMatchObject({ code: "53100" });
    for (const watcher of watchers)
      expect(await findWatcher(db, watcher)).toMatchObject({ status: "active" });
    disk.mend();
    await sql`drop table ballast`.execute(db);
    await pass();
    for (const watcher of watchers) expect(await listRuns(db, watcher)).toHaveLength(1);
    expect(await reapOnce(db, { rules: reapRules, policy })).toHaveLength(1);
  },
  60_000,
);
