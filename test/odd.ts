/**
 * `npm run test:odd -- [--tz ZONE] [--date YYYY-MM-DD[THH:MM:SS]] [--order random] [--hog N]
 * [FILE…]`: the tests under odd circumstances: another zone, another date (libfaketime, for Node
 * and PostgreSQL), files in random order, beside processes that use the CPU. Without options all of
 * them, one whole run (`npm run test:all`) for each; exits with 1 if one run fails.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createPostgres } from "./chaos/rig/postgres.ts";
import { findFaketime } from "./support/faketime.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    tz: { type: "string" },
    date: { type: "string" },
    order: { type: "string" },
    hog: { type: "string" },
  },
});

type Oddity = {
  name: string;
  env?: Record<string, string>;
  args?: string[];
  hogs?: number;
  /** For Node and for a PostgreSQL of the run's own. */
  clock?: Record<string, string>;
};

const vitest = fileURLToPath(new URL("../node_modules/vitest/vitest.mjs", import.meta.url));
const say = (text: string) => process.stdout.write(`${text}\n`);

function zone(tz: string): Oddity {
  return { name: `TZ=${tz}`, env: { TZ: tz } };
}

/** The clock goes on from the time in UTC, without one from noon. */
function date(day: string): Oddity | undefined {
  const library = findFaketime();
  if (library === undefined) {
    say("date: left out, libfaketime is not installed (apt-get install libfaketime)");
    return undefined;
  }
  const aheadSeconds = Math.round(
    (Date.parse(day.includes("T") ? `${day}Z` : `${day}T12:00:00Z`) - Date.now()) / 1_000,
  );
  if (Number.isNaN(aheadSeconds)) throw new Error(`--date ${day}: write YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS`);
  const offset = `${aheadSeconds < 0 ? "-" : "+"}${Math.abs(aheadSeconds)}`;
  // Not a start time: each process would begin at that time anew.
  const clock = {
    ...{ LD_PRELOAD: library, FAKETIME: offset },
    ...{ FAKETIME_DONT_FAKE_MONOTONIC: "1", DONT_FAKE_MONOTONIC: "1" },
  };
  // A browser is slow under the library, and the rig of chaos moves clocks by itself.
  const env = { PINION_TEST_LEFT_OUT: "test/e2e/page/** test/chaos/**" };
  return { name: `the date ${day}, without the page's and chaos's tests`, clock, env };
}

/** Of files; the tests of some files are steps of one story. */
const shuffled: Oddity = { name: "random order", args: ["--sequence.shuffle.files"] };
const hogged = (hogs: number): Oddity => ({ name: `${hogs} processes that use the CPU`, hogs });

const given = [
  ...(values.tz ? [zone(values.tz)] : []),
  ...(values.date ? [date(values.date)] : []),
  ...(values.order === "random" ? [shuffled] : []),
  ...(values.hog ? [hogged(Number(values.hog))] : []),
];
const all = [
  { name: "idle" },
  hogged(2),
  shuffled,
  zone("Pacific/Kiritimati"),
  zone("America/St_Johns"),
  date("2027-03-28"),
  date("2028-02-29"),
];
// Given oddities come together, in one run.
const runs =
  given.length > 0
    ? [merged(given.filter((one) => one !== undefined))]
    : all.filter((one) => one !== undefined);

function merged(oddities: readonly Oddity[]): Oddity {
  return {
    name: oddities.map(({ name }) => name).join(", "),
    env: Object.assign({}, ...oddities.map(({ env }) => env ?? {})),
    args: oddities.flatMap(({ args }) => args ?? []),
    hogs: oddities.reduce((sum, { hogs }) => sum + (hogs ?? 0), 0),
    ...Object.assign({}, ...oddities.map(({ clock }) => (clock ? { clock } : {}))),
  };
}

/** A PostgreSQL by the same clock. */
async function openPostgres(env: Record<string, string>): Promise<{ url: string; close(): Promise<void> }> {
  const directory = await mkdtemp(join(tmpdir(), "pinion-odd-"));
  await chmod(directory, 0o711);
  const server = await createPostgres({
    directory: join(directory, "postgres"),
    settings: { max_connections: "300", fsync: "off", synchronous_commit: "off", deadlock_timeout: "200ms" },
    env,
  });
  return {
    url: server.url,
    async close() {
      await server.remove();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** The exit code of the tests; null after a signal. The signals to end go on to the tests. */
async function runTests(args: readonly string[], env: Record<string, string>): Promise<number | null> {
  const tests = spawn(process.execPath, [vitest, "run", ...args], {
    stdio: "inherit",
    env: { ...process.env, PINION_TEST_SLOW: "1", ...env },
  });
  const end = (signal: NodeJS.Signals) => tests.kill(signal);
  process.on("SIGINT", end).on("SIGTERM", end);
  const [status] = (await once(tests, "exit")) as [number | null];
  process.off("SIGINT", end).off("SIGTERM", end);
  return status;
}

const failed: string[] = [];
for (const { name, env, args, hogs, clock } of runs) {
  say(`odd: ${name}`);
  const postgres = clock && (await openPostgres(clock));
  const ofClock = clock ? { ...clock, PINION_TEST_DATABASE_URL: postgres!.url } : {};
  const busy: ChildProcess[] = Array.from({ length: hogs ?? 0 }, () =>
    spawn(process.execPath, ["--eval", "for (;;);"], { stdio: "ignore" }),
  );
  const status = await runTests([...(args ?? []), ...positionals], { ...env, ...ofClock });
  await postgres?.close();
  for (const hog of busy) hog.kill("SIGKILL");
  if (status !== 0) failed.push(name);
}
say(failed.length === 0 ? `odd: ${runs.length} runs passed` : `odd: failed: ${failed.join("; ")}`);
process.exit(failed.length === 0 ? 0 : 1);
