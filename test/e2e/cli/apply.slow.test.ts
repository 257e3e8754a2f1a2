/**
 * `pinion apply` as used by people and pipelines: a process with pipes, signals and a terminal,
 * against a real replica.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { PlatformStatus } from "#gen/pinion/v1/agent_pb.js";
import { newKey } from "../../../src/secrets.ts";
import { useDatabase } from "../../support/database.ts";
import { openTestReplica, type TestReplica } from "../../support/server.ts";

const main = inject("pinionMain");
const database = useDatabase({ per: "file" });
const home = mkdtempSync(join(tmpdir(), "pinion-apply-e2e-"));
const file = join(home, "pinion.toml");
/** A hanging command fails its test with the output so far. */
const commandTimeoutMs = 60_000;
const testTimeoutMs = 120_000;

let replica: TestReplica;
let env: Record<string, string>;

beforeAll(async () => {
  replica = await openTestReplica(database.url, {
    PINION_SECRET_KEYS: newKey(),
    PINION_DESTINATION_NETWORKS: "127.0.0.1",
  });
  env = {
    PATH: process.env.PATH ?? "",
    HOME: home,
    PINION_URL: replica.url,
    PINION_TOKEN: replica.token,
    TERM: "xterm",
    KEY: `whsec_${Buffer.alloc(32, 7).toString("base64")}`,
  };
});

afterAll(async () => {
  replica.clients.close();
  await replica.stop();
  rmSync(home, { recursive: true, force: true });
});

type Ended = { code: number; out: string; err: string };

function pinion(...args: string[]): Promise<Ended> {
  return new Promise((done) => {
    execFile(
      process.execPath,
      [main, ...args],
      { env, cwd: home, timeout: commandTimeoutMs },
      (error, out, err) => done({ code: error ? Number(error.code ?? Number.NaN) : 0, out, err }),
    );
  });
}

/** An agent with watchers. */
function agentWith(id: string, watchers: number): string {
  const each = (index: number) =>
    `[[agents.${id}.watchers]]\nslug = "${id}-${index}"\nprompt = "Say ${index}."\n`;
  return `[agents.${id}]\n${Array.from({ length: watchers }, (_, index) => each(index)).join("")}`;
}

async function watchersOf(id: string): Promise<string[]> {
  const slugs: string[] = [];
  let pageToken = "";
  do {
    const page = await replica.clients.watchers.listWatchers({ pageSize: 500, pageToken });
    slugs.push(...page.watchers.map(({ slug }) => slug).filter((slug) => slug.startsWith(`${id}-`)));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return slugs;
}

/**
 * Resolves once the output of the process matches; keeps reading afterwards, so that the process
 * can always write.
 */
async function untilPrinted(child: ChildProcess, pattern: RegExp): Promise<void> {
  let printed = "";
  const found = Promise.withResolvers<void>();
  child.stdout!.on("data", (chunk) => {
    printed += chunk;
    if (pattern.test(printed)) found.resolve();
  });
  child.once("exit", (code) => found.reject(new Error(`it ended with ${code}, having printed:\n${printed}`)));
  await found.promise;
}

test(
  "a pipeline reads the exit code and one JSON document",
  async () => {
    writeFileSync(file, agentWith("ci", 2));
    const before = await pinion("apply", "--dry-run", "--exit-code", "--json");
    expect(before).toMatchObject({ code: 7, err: "" });
    expect(JSON.parse(before.out)).toMatchObject({ dry_run: true, applied: false, summary: { create: 3 } });
    const applied = await pinion("apply", "--yes", "--json");
    expect(applied).toMatchObject({ code: 0, err: "" });
    expect(JSON.parse(applied.out)).toMatchObject({
      applied: true,
      done: { create: 3, update: 0, delete: 0 },
    });
    expect(JSON.parse(applied.out).steps[0]).toMatchObject({
      action: "create",
      kind: "agent",
      id: "ci",
      done: true,
    });
    expect(await pinion("apply", "--dry-run", "--exit-code")).toMatchObject({ code: 0 });
    expect(await pinion("apply")).toMatchObject({ code: 0 });
  },
  testTimeoutMs,
);

test(
  "what is wrong ends the command with the code that says so",
  async () => {
    const bad = join(home, "bad.toml");
    writeFileSync(bad, "[agents.ada]\nname = ");
    expect(await pinion("apply", "-f", bad)).toMatchObject({ code: 2 });
    expect(await pinion("apply", "-f", join(home, "none.toml"))).toMatchObject({ code: 2 });
    expect(await pinion("apply", "--only", "turns")).toMatchObject({ code: 2 });
    expect(await pinion("apply", "--url", "http://127.0.0.1:9")).toMatchObject({ code: 3 });
    expect(await pinion("apply", "--token", "pin_pat_none")).toMatchObject({ code: 4 });
    const schema = await pinion("apply", "--print-schema");
    expect(JSON.parse(schema.out)).toMatchObject({ title: "pinion.toml" });
    const pulled = await pinion("pull", "-f", "-");
    expect(pulled).toMatchObject({ code: 0, err: "" });
    expect(pulled.out).toContain("[agents.pinion-default]");
  },
  testTimeoutMs,
);

test(
  "an apply that is killed half-way is finished by running it again",
  async () => {
    const count = 60;
    writeFileSync(file, agentWith("killed", count));
    const child = spawn(process.execPath, [main, "apply", "--yes"], {
      env,
      cwd: home,
      stdio: ["ignore", "pipe", "ignore"],
    });
    await untilPrinted(child, /created watcher killed-/);
    child.kill("SIGKILL");
    await once(child, "exit");
    const left = await watchersOf("killed");
    expect(left.length).toBeGreaterThan(0);
    expect(left.length).toBeLessThan(count);
    expect(await pinion("apply", "--yes")).toMatchObject({ code: 0 });
    expect(await watchersOf("killed")).toHaveLength(count);
    expect(await pinion("apply", "--dry-run", "--exit-code")).toMatchObject({ code: 0 });
  },
  testTimeoutMs,
);

/** An agent with platforms. */
function agentWithPlatforms(id: string, platforms: number): string {
  const each = (index: number) =>
    `[[agents.${id}.platforms]]\nid = "${id}-${index}"\nkind = "webhook"\nconfig = { url = "http://127.0.0.1:9/${index}", signing_secret = "$KEY" }\n`;
  return `[agents.${id}]\n${Array.from({ length: platforms }, (_, index) => each(index)).join("")}`;
}

async function platformsOf(agentId: string) {
  const found = [];
  let pageToken = "";
  do {
    const page = await replica.clients.agents.listPlatforms({ agentId, pageSize: 500, pageToken });
    found.push(...page.platforms);
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return found;
}

test(
  "an apply that is killed among its platforms is finished by running it again",
  async () => {
    // Two batches of 100 are under way at once, and two are left.
    const count = 400;
    writeFileSync(file, agentWithPlatforms("cut", count));
    const child = spawn(process.execPath, [main, "apply", "--yes"], {
      env,
      cwd: home,
      stdio: ["ignore", "pipe", "ignore"],
    });
    await untilPrinted(child, /created platform cut-/);
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(await pinion("apply", "--yes")).toMatchObject({ code: 0 });
    const platforms = await platformsOf("cut");
    expect(platforms).toHaveLength(count);
    expect(platforms.every(({ status }) => status === PlatformStatus.RUNNING)).toBe(true);
    expect(await pinion("apply", "--dry-run", "--exit-code")).toMatchObject({ code: 0 });
  },
  testTimeoutMs,
);

test(
  "people who apply one file at once, each by a process of their own, all succeed, and everything is there once",
  async () => {
    writeFileSync(file, `${agentWith("together", 40)}${agentWithPlatforms("crowd", 120)}`);
    const people = await Promise.all(Array.from({ length: 3 }, () => pinion("apply", "--yes")));
    expect(people.map(({ code, err }) => ({ code, err }))).toEqual(Array(3).fill({ code: 0, err: "" }));
    expect(await watchersOf("together")).toHaveLength(40);
    const platforms = await platformsOf("crowd");
    expect(platforms).toHaveLength(120);
    expect(new Set(platforms.map(({ version }) => version))).toEqual(new Set([1]));
    expect(await pinion("apply", "--dry-run", "--exit-code")).toMatchObject({ code: 0 });
  },
  testTimeoutMs,
);

test(
  "Ctrl-C ends it between two writes, and says how it goes on",
  async () => {
    writeFileSync(file, agentWith("stopped", 60));
    const child = spawn(process.execPath, [main, "apply", "--yes"], { env, cwd: home });
    let errors = "";
    child.stderr.on("data", (chunk) => {
      errors += chunk;
    });
    await untilPrinted(child, /created watcher stopped-/);
    child.kill("SIGINT");
    const [code] = await once(child, "exit");
    expect(code).toBe(130);
    expect(errors).toContain("run it again");
    expect(await pinion("apply", "--yes")).toMatchObject({ code: 0 });
  },
  testTimeoutMs,
);

test(
  "an apply that ends because nobody reads its lines any more has not succeeded",
  async () => {
    writeFileSync(file, agentWith("unread", 60));
    const child = spawn(process.execPath, [main, "apply", "--yes"], { env, cwd: home });
    await untilPrinted(child, /created watcher unread-/);
    child.stdout.destroy();
    const [code] = await once(child, "exit");
    expect(code).toBe(1);
    expect(await pinion("apply", "--yes")).toMatchObject({ code: 0 });
  },
  testTimeoutMs,
);

const hasScript = spawnSync("script", ["--version"]).status === 0;

test.skipIf(!hasScript)(
  "on a terminal the plan is shown and a person says yes or no",
  async () => {
    const answered = async (answer: string) => {
      const typescript = join(home, "typescript");
      const command = `"${process.execPath}" "${main}" apply`;
      const child = spawn("script", ["-qec", command, typescript], { env, cwd: home });
      await untilPrinted(child, /\[y\/N\]/);
      child.stdin.write(`${answer}\n`);
      const [code] = await once(child, "exit");
      return { code, shown: readFileSync(typescript, "utf8") };
    };
    writeFileSync(file, agentWith("asked", 3));
    const no = await answered("n");
    expect(no.code).toBe(130);
    expect(no.shown).toContain("4 to create");
    expect(await watchersOf("asked")).toEqual([]);
    const yes = await answered("y");
    expect(yes.code).toBe(0);
    expect(yes.shown).toContain("4 of 4");
    // A progress bar redraws its line on a terminal, and only there.
    expect(yes.shown).toContain("\r\u001b[2K");
    expect(yes.shown).toContain("█");
    writeFileSync(file, agentWith("piped", 3));
    const piped = await pinion("apply", "--yes");
    expect(piped.out).toContain("created watcher piped-0\n");
    for (const drawn of ["\r", "\u001b", "█"]) expect(piped.out).not.toContain(drawn);
    expect(await watchersOf("asked")).toHaveLength(3);
  },
  testTimeoutMs,
);
