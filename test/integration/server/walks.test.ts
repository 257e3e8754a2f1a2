/**
 * The two walks of ARCHITECTURE.md: each file with a number runs when a slot falls due, or when a
 * device completes a run. With PINION_TEST_WALKS=1 the test prints all files that ran.
 */
import { readFileSync } from "node:fs";
import { Session } from "node:inspector/promises";
import { sql } from "kysely";
import { expect, onTestFinished, test } from "vitest";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice, type Identity } from "../../support/device.ts";
import { startTestReplica, type TestReplica } from "../../support/server.ts";

const database = useDatabase();
const root = new URL("../../../", import.meta.url);

/** The numbered files of a walk, as the page names them. */
function numberedFiles(walk: string): string[] {
  const page = readFileSync(new URL("ARCHITECTURE.md", root), "utf8");
  const [, text = ""] = page.split(`**${walk}**`);
  const [part = ""] = text.split(/\n\*\*|\n## /);
  const found = [...part.matchAll(/\((\d+)\)\s+`([^`]+)`/g)];
  expect(found.map(([, number]) => Number(number))).toEqual(found.map((_, index) => index + 1));
  return found.map(([, , name = ""]) => name);
}

/** Counts calls of functions. */
async function recordFunctions() {
  const inspector = new Session();
  inspector.connect();
  await inspector.post("Profiler.enable");
  await inspector.post("Profiler.startPreciseCoverage", { callCount: true, detailed: false });
  onTestFinished(async () => {
    await inspector.post("Profiler.stopPreciseCoverage");
    inspector.disconnect();
  });
  return {
    /** The files below `src` whose functions were called since the last call of this function. */
    async take(): Promise<string[]> {
      const { result } = await inspector.post("Profiler.takePreciseCoverage");
      const called = result.filter(
        ({ url, functions }) =>
          url.startsWith(new URL("src/", root).href) &&
          // The function from the first character on is the module itself.
          functions.some(({ ranges: [range] }) => range && range.count > 0 && range.startOffset > 0),
      );
      return called.map(({ url }) => new URL(url).pathname.slice(new URL("src/", root).pathname.length));
    },
  };
}

/** A watcher whose next slot falls due in some seconds; the materializer knows the slot. */
async function watcherDueSoon({ clients }: TestReplica, { deviceId }: Identity): Promise<void> {
  const spec = { prompt: "do it", deviceId };
  const { watcher } = await clients.watchers.createWatcher({
    spec: { ...spec, name: "due", schedule: "0 0 1 1 *" },
  });
  const dueAt = new Date(Date.now() + 3_000);
  await sql`update schedule_position set next_slot_at = ${dueAt}, next_due_at = ${dueAt} where watcher_id = ${watcher!.id}`.execute(
    database.db,
  );
  // Any edit makes the materializer look.
  await clients.watchers.createWatcher({ spec: { ...spec, name: "other" } });
}

test("the numbered files of the two walks are the files that run", async () => {
  // The slot is recorded half a second ahead, after the calls that make the watcher.
  const replica = await startTestReplica(database.url, { PINION_LOOK_AHEAD_MS: "1000" });
  const device = await enrolDevice(replica.clients);
  const stream = await connect(replica.url, device);
  const functions = await recordFunctions();
  await watcherDueSoon(replica, device);
  const assignment = await stream.next("assignment");
  const ofSlot = await functions.take();
  stream.accept(assignment);
  await stream.beat([assignment]);
  await functions.take();
  await stream.complete(assignment);
  const ofCompletion = await functions.take();

  for (const [walk, ran] of [
    ["One due slot", ofSlot],
    ["One completion", ofCompletion],
  ] as const) {
    const files = numberedFiles(walk);
    expect(files.length).toBeGreaterThan(15);
    const named = files.map((name) => ({
      name,
      files: ran.filter((file) => `/${file}`.endsWith(`/${name}`)),
    }));
    expect(named.filter(({ files }) => files.length !== 1)).toEqual([]);
    const numbered = new Set(named.flatMap(({ files }) => files));
    if (process.env.PINION_TEST_WALKS === "1") {
      process.stdout.write(
        `${walk}: ${numbered.size} numbered, ${ran.length} ran; without a number:\n  ${ran
          .filter((file) => !numbered.has(file))
          .join("\n  ")}\n`,
      );
    }
  }
});
