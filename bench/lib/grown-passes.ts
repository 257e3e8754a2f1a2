import { retainOnce } from "../../src/scheduler/retention.ts";
import { openDatabase, transaction } from "../../src/store/pg/database.ts";
import { migrate } from "../../src/store/pg/migrate.ts";
import * as retention from "../../src/store/work/service/retention.ts";
import * as schedules from "../../src/store/work/watchers/schedules.ts";
import { createLogger } from "../../src/telemetry/log.ts";
import { startChild } from "./children.ts";
import type { Row } from "./report.ts";

/** What replicas do by themselves, over everything in the database. */
export async function measurePasses(url: string) {
  const rows: Row[] = [];
  const measure = async (what: string, pass: () => Promise<unknown>, times = 3) => {
    const taken: number[] = [];
    for (let nth = 0; nth < times; nth++) {
      const startedAt = performance.now();
      await pass();
      taken.push(performance.now() - startedAt);
    }
    rows.push({ "": what, "least ms": Math.min(...taken), "most ms": Math.max(...taken) });
  };
  await measure("a replica starts", async () => {
    const replica = await startChild("replica.ts", { DATABASE_URL: url });
    await replica.ask({ kind: "url" });
    await replica.ask({ kind: "stop" });
    await replica.leave();
  });
  await measure("the migrations find nothing to do", () => migrate(url));
  const database = openDatabase({ url, poolMax: 2 });
  const { db } = database;
  const log = createLogger({ name: "bench", level: "error" });
  const age = { days: 90, conversationDays: 365 };
  try {
    await measure("a pass of retention with nothing old", () => retainOnce(db, { ...age, log }));
    await measure("a look for due schedules", () => transaction(db, (tx) => schedules.lockDue(tx, 100)));
    // Everything of the oldest day.
    const days = 28;
    await measure("the oldest day is dropped", () => retainOnce(db, { ...age, days, log }), 1);
    await measure("a batch of old rows is deleted", () => retention.deleteOld(db, { ...age, days }));
  } finally {
    await database.close();
  }
  return { options: {}, rows, budgets: [] };
}
