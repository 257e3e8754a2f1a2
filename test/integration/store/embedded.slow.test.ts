import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, lstat, mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import {
  type Embedded,
  type EmbeddedOptions,
  startEmbedded,
} from "../../../src/store/pg/embedded/cluster.ts";

let home: string;
let dataDir: string;
/** The data directory of a cluster that was made and stopped. */
let made: string;
const running: Embedded[] = [];
const children: ChildProcess[] = [];

beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), "pinion-embedded-"));
  await chmod(folder, 0o711);
  made = join(folder, "data");
  await (await startEmbedded({ dataDir: made })).stop();
}, 60_000);
afterAll(() => rm(dirname(made), { recursive: true, force: true }));
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "pinion-embedded-"));
  await chmod(home, 0o711);
  dataDir = join(home, "data");
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await Promise.all(running.splice(0).map((embedded) => embedded.stop()));
  const place = await lstat(join(dataDir, "postgres")).catch(() => undefined);
  if (place?.isSymbolicLink()) {
    const { readlink } = await import("node:fs/promises");
    await rm(join(await readlink(join(dataDir, "postgres")), ".."), { recursive: true, force: true });
  }
  // PostgreSQL of a killed child ends by itself, and writes until then.
  await rm(home, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 });
});

async function start(options: Partial<EmbeddedOptions> = {}): Promise<Embedded> {
  const embedded = await startEmbedded({ dataDir, ...options });
  running.push(embedded);
  return embedded;
}

/** Begins with a cluster: making one takes a second of processor time. */
async function beginWithCluster(): Promise<void> {
  // With their owners: for root, the files belong to PostgreSQL's user.
  execFileSync("cp", ["-a", made, dataDir]);
  await rm(join(dataDir, "postgres.port"));
}

async function query(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => {});
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

type Report = { url: string; pid: number; origin: string; error?: string };

/** Another Pinion process, up to its report. */
async function startElsewhere(): Promise<{ child: ChildProcess; report: Report }> {
  const script = new URL("../../support/embedded-process.ts", import.meta.url).pathname;
  const child = spawn(process.execPath, [script, dataDir], { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  const [line] = await once(createInterface({ input: child.stdout! }), "line");
  return { child, report: JSON.parse(String(line)) as Report };
}

async function kill(child: ChildProcess): Promise<void> {
  child.kill("SIGKILL");
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
}

test("data and port survive a stop and a start", async () => {
  const first = await start();
  expect(first.origin).toBe("started");
  await query(first.url, "create table t as select 7 as n");
  await first.stop();
  const second = await start();
  expect(second.port).toBe(first.port);
  expect(await query(second.url, "select n from t")).toEqual([{ n: 7 }]);
});

test("it syncs to disk, listens on the loopback alone, and its password is its owner's", async () => {
  await beginWithCluster();
  const { url } = await start();
  expect(await query(url, "show fsync")).toEqual([{ fsync: "on" }]);
  expect(await query(url, "show synchronous_commit")).toEqual([{ synchronous_commit: "on" }]);
  expect(await query(url, "show listen_addresses")).toEqual([{ listen_addresses: "127.0.0.1" }]);
  expect((await stat(join(dataDir, "postgres.password"))).mode & 0o777).toBe(0o600);
  const wrong = new URL(url);
  wrong.password = "guess";
  await expect(query(wrong.href, "select 1")).rejects.toMatchObject({ code: "28P01" });
});

test("after a killed Pinion the next one takes over the PostgreSQL it left, with all its data", async () => {
  await beginWithCluster();
  const { child, report } = await startElsewhere();
  await query(report.url, "create table t as select 7 as n");
  await kill(child);
  const next = await start();
  expect(next.origin).toBe("reattached");
  expect(next.pid).toBe(report.pid);
  expect(await query(next.url, "select n from t")).toEqual([{ n: 7 }]);
  await next.stop();
  await expect(query(next.url, "select 1")).rejects.toThrow();
  expect((await start()).origin).toBe("started");
});

test("a left PostgreSQL on another port than wanted is stopped and started anew", async () => {
  await beginWithCluster();
  const { child, report } = await startElsewhere();
  await kill(child);
  const port = await freePort();
  const next = await start({ port });
  expect(next).toMatchObject({ origin: "restarted", port });
  expect(next.pid).not.toBe(report.pid);
});

test("a PostgreSQL that was killed with its Pinion recovers what was committed", async () => {
  await beginWithCluster();
  const { child, report } = await startElsewhere();
  await query(report.url, "create table t as select 7 as n");
  await kill(child);
  process.kill(report.pid, "SIGKILL");
  const next = await start();
  expect(await query(next.url, "select n from t")).toEqual([{ n: 7 }]);
});

test("a second Pinion on the same data directory is refused and told who has it", async () => {
  await beginWithCluster();
  const { child, report } = await startElsewhere();
  await expect(start()).rejects.toThrow(new RegExp(`process ${child.pid}.*another data directory`));
  expect(await query(report.url, "select 1 as one")).toEqual([{ one: 1 }]);
});

test("of two that start at once one gets the directory", async () => {
  const results = await Promise.allSettled([start(), start(), start()]);
  expect(results.filter((result) => result.status === "fulfilled")).toHaveLength(1);
});

test("when its port is taken it moves, unless that port was asked for", async () => {
  await beginWithCluster();
  const { port, stop } = await start();
  await stop();
  const squatter = createServer();
  await new Promise<void>((done) => squatter.listen(port, "127.0.0.1", done));
  try {
    await expect(start({ port })).rejects.toThrow(new RegExp(`Port ${port}.*taken`));
    expect((await start()).port).not.toBe(port);
  } finally {
    squatter.close();
  }
});

test("a process that got the number of a PostgreSQL long gone is left alone", async () => {
  await beginWithCluster();
  const first = await start();
  await first.stop();
  const lines = [process.pid, join(dataDir, "postgres"), 0, first.port, "", "127.0.0.1", "", "ready"];
  await writeFile(join(dataDir, "postgres", "postmaster.pid"), `${lines.join("\n")}\n`);
  expect((await start()).origin).toBe("started");
});

test("a PostgreSQL that cannot start says why, and where its log is", async () => {
  await beginWithCluster();
  const { stop } = await start();
  await stop();
  await expect(start({ settings: { shared_buffers: "nonsense" } })).rejects.toThrow(
    /postgres\.log.*[\s\S]*nonsense[\s\S]*DATABASE_URL/,
  );
});

test.runIf(process.getuid?.() === 0)(
  "root can keep the data below a directory that is closed to others",
  async () => {
    await chmod(home, 0o700);
    await mkdir(dataDir, { mode: 0o700 });
    const first = await start();
    await query(first.url, "create table t as select 7 as n");
    expect((await lstat(join(dataDir, "postgres"))).isSymbolicLink()).toBe(true);
    await first.stop();
    const second = await start();
    expect(await query(second.url, "select n from t")).toEqual([{ n: 7 }]);
  },
);

test("the password never shows in PostgreSQL's log or command line", async () => {
  await beginWithCluster();
  const { url, pid } = await start();
  const { password } = new URL(url);
  expect(await readFile(join(dataDir, "postgres.log"), "utf8")).not.toContain(password);
  if (process.platform === "linux") {
    expect(await readFile(`/proc/${pid}/cmdline`, "utf8")).not.toContain(password);
  }
});

function freePort(): Promise<number> {
  return new Promise((done) => {
    const server = createServer();
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => done(port));
    });
  });
}
