import { sql } from "kysely";
import { test } from "vitest";
import { createLogger } from "../../../src/log.ts";
import { materializeOnce } from "../../../src/scheduler/materializer.ts";
import { useDatabase } from "../../support/database.ts";
import { noteDoorbell, seedDevice, seedWatcher } from "../../support/rows.ts";

const database = useDatabase();
test("measure", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  for (let i = 0; i < 100; i++)
    await seedWatcher(db, device, {
      schedule: "* * * * *",
      timeZone: ["UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York"][i % 4]!,
    });
  await sql`update watcher set next_slot_at = date_trunc('minute', now()) - interval '600 min', next_due_at = date_trunc('minute', now()) - interval '600 min' where schedule = '* * * * *'`.execute(
    db,
  );
  let blocked = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const n = performance.now();
    blocked = Math.max(blocked, n - last);
    last = n;
  }, 1);
  const out: string[] = [];
  for (let i = 0; i < 30; i++) {
    blocked = 0;
    last = performance.now();
    const t = performance.now();
    const n = await materializeOnce(db, {
      doorbell: noteDoorbell(),
      log: createLogger({ name: "test", level: "error" }),
    });
    const ms = performance.now() - t;
    const { rows } = await sql<{ n: number }>`select count(*)::int as n from slot`.execute(db);
    out.push(`${n} watchers ${Math.round(ms)} ms blocked ${Math.round(blocked)} slots ${rows[0]!.n}`);
    if (n === 0) break;
  }
  clearInterval(timer);
  console.log(out.join("\n"));
}, 120_000);
