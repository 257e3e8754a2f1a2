/**
 * The shell commands of the pages, unchanged, typed by a reader in an empty directory: a server
 * runs, this machine is its device, and `.pinion` holds the files of the first start. Placeholders
 * are filled in below.
 */
import { spawn } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../support/database.ts";
import {
  documentedCommands,
  executedAsAWhole,
  executedElsewhere,
  notExecutable,
  pages,
  root,
} from "../support/docs.ts";
import { openTestReplica, type TestReplica } from "../support/server.ts";
import { untilStatus } from "../support/work.ts";

const database = useDatabase({ per: "file" });
const startMs = 60_000;
/** A hanging command fails its test with the output so far. */
const commandMs = 100_000;

/** As root, an embedded PostgreSQL's own user must be able to traverse the directory. */
const home = mkdtempSync(join(tmpdir(), "pinion-docs-"));
const at = (...parts: string[]) => join(home, ...parts);

let replica: TestReplica;
let runId: string;
let environment: Record<string, string>;
let daemon: Typed;

type Result = { exit: number | null; signal: string | null; printed: string };
type Typed = {
  ended: Promise<Result>;
  /** Resolves once the output matches; fails if the command ends before. */
  until(pattern: RegExp): Promise<void>;
  interrupt(): void;
};

/** Types a line into bash, in the reader's directory. */
function type(line: string, options: { goesOn?: boolean } = {}): Typed {
  const child = spawn("bash", ["-eo", "pipefail", "-c", line], {
    cwd: home,
    env: environment,
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  let printed = "";
  let look = () => {};
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk) => {
      printed += chunk;
      look();
    });
  }
  const interrupt = () => {
    try {
      process.kill(-child.pid!, "SIGINT");
    } catch {
      // The process has ended.
    }
  };
  const hangs = options.goesOn
    ? undefined
    : setTimeout(() => process.kill(-child.pid!, "SIGKILL"), commandMs);
  const ended = new Promise<Result>((resolve) => {
    child.on("close", (exit, signal) => {
      clearTimeout(hangs);
      resolve({ exit, signal, printed });
    });
  });
  return {
    ended,
    interrupt,
    until: (pattern) =>
      new Promise((resolve, reject) => {
        look = () => pattern.test(printed) && resolve();
        look();
        void ended.then(() => reject(new Error(`it ended before ${pattern}:\n${printed}`)));
      }),
  };
}

function program(name: string, text: string): void {
  writeFileSync(at("bin", name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
}

beforeAll(async () => {
  replica = await openTestReplica(database.url, {
    PINION_SECRET_KEYS: `k:${Buffer.alloc(32, 7).toString("base64")}`,
  });
  const { clients, token, url } = replica;
  for (const folder of ["bin", ".pinion/device", "config/pinion", ".pinion-acme"])
    mkdirSync(at(folder), { recursive: true, mode: 0o700 });
  program("pinion", `exec "${process.execPath}" "${inject("pinionMain")}" "$@"`);
  // A replacement of npx that finds the commands of a checkout; npm itself stays out of the tests.
  program("npx", 'exec "$@"');
  symlinkSync(at("bin/pinion"), at("pinion"));
  writeFileSync(at(".pinion/token"), `${token}\n`, { mode: 0o600 });
  writeFileSync(at(".pinion/url"), `${url}\n`);
  const config = '[executors]\nshell = { command = ["sh", "-c", "cat; echo done"], stdin = "prompt" }\n';
  for (const file of [".pinion/device.toml", "config/pinion/device.toml", ".pinion-acme/device.toml"]) {
    writeFileSync(at(file), config);
  }
  copyFileSync(join(root, "pinion.example.toml"), at("pinion.example.toml"));
  environment = {
    PATH: `${at("bin")}:${join(root, "node_modules/.bin")}:${process.env.PATH}`,
    HOME: home,
    XDG_CONFIG_HOME: at("config"),
    XDG_STATE_HOME: at("state"),
    PINION_PORT: "0",
    NO_COLOR: "1",
  };
  const enrolled = await type(
    `pinion device enroll --state-dir .pinion/device --label "${hostname()}" --join-code ${await joinCode()}`,
  ).ended;
  expect(enrolled, enrolled.printed).toMatchObject({ exit: 0 });
  daemon = type("exec pinion device run --state-dir .pinion/device --config .pinion/device.toml", {
    goesOn: true,
  });
  await daemon.until(/connected/);
  const [device] = (await clients.fleet.listDevices({})).devices;
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: "Of the page", prompt: "say it", deviceId: device!.id },
  });
  const { run } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  runId = run!.id;
  await untilStatus(clients, { workId: runId }, RunStatus.COMPLETED, 20_000);
}, startMs);

afterAll(async () => {
  daemon?.interrupt();
  await daemon?.ended;
  await replica?.stop();
  // For root the cluster lies elsewhere, behind a link.
  const cluster = at("up/postgres");
  if (existsSync(cluster)) rmSync(realpathSync(cluster), { recursive: true, force: true });
  rmSync(home, { recursive: true, force: true });
}, startMs);

async function joinCode(): Promise<string> {
  return (await replica.clients.fleet.createJoinCode({})).joinCode;
}

/** Fills in the placeholders of the pages. */
async function filledIn(command: string): Promise<string> {
  let line = command
    .replaceAll(/http:\/\/localhost:7420|https:\/\/pinion\.example\.org/g, replica.url)
    .replaceAll("RUN_ID", runId)
    // `npm start` by its definition in package.json, with a data directory and a port of its own.
    .replace(/^npm start -- /, "pinion up --data up --port 0 ")
    .replaceAll("$DATABASE_URL", database.url)
    .replace(/--state-dir DIR\b/, "--state-dir .pinion/device")
    .replace(/--config FILE\b/, "--config .pinion/device.toml");
  if (/--join-code [A-Z_-]+/.test(line))
    // A label of its own: the pages name this machine's device by its label, the host's name.
    line = line.replace(/--join-code [A-Z_-]+/, `--join-code ${await joinCode()} --label another`);
  return line;
}

/** Commands that run until Ctrl-C, and the output by which they are ready. */
const goesOn: [command: RegExp, isThere: RegExp][] = [
  [/^pinion worker /, /connected/],
  [/^pinion device run /, /connected/],
  [/^npm start -- --host /, /What next/],
];

const commands = documentedCommands();
const isExecutedHere = ({ page, command }: (typeof commands)[number]) =>
  !(page in executedAsAWhole) && !(command in executedElsewhere) && !(command in notExecutable);

test("every command of the pages is executed here, by a test that is there, or not for a reason", () => {
  expect(commands.length).toBeGreaterThan(50);
  const written = new Set(commands.map(({ command }) => command));
  for (const [command, places] of Object.entries(executedElsewhere)) {
    expect(written, "stands in no page any more").toContain(command);
    for (const [file, text] of places) expect(readFileSync(join(root, file), "utf8"), file).toContain(text);
  }
  for (const command of Object.keys(notExecutable)) expect(written).toContain(command);
  for (const [page, file] of Object.entries(executedAsAWhole)) {
    expect(pages).toContain(page);
    expect(readFileSync(join(root, file), "utf8"), file).toContain(`"${page}"`);
  }
});

const findsProgram = (name: string) =>
  process.env.PATH!.split(delimiter).some((folder) => existsSync(join(folder, name)));

test.for(commands.filter(isExecutedHere))(
  "$page:$line $command",
  { timeout: commandMs + 20_000 },
  async ({ page, line, command }, { skip }) => {
    if (/\| jq /.test(command) && !findsProgram("jq")) {
      console.error(`NOTICE: not executed, for there is no jq: ${command}`);
      skip("there is no jq");
    }
    const exports = commands
      .filter(
        (earlier) => earlier.page === page && earlier.line < line && earlier.command.startsWith("export "),
      )
      .map((earlier) => earlier.command);
    const [, isThere] = goesOn.find(([pattern]) => pattern.test(command)) ?? [];
    const typed = type(
      [...exports, isThere ? `exec ${await filledIn(command)}` : await filledIn(command)].join("\n"),
    );
    if (isThere) {
      await typed.until(isThere);
      typed.interrupt();
    }
    const { exit, signal, printed } = await typed.ended;
    if (command.includes("--database-url")) {
      // Red, and rightly so: the tests' PostgreSQL runs with fsync off. All other checks pass.
      expect(printed.match(/^✗.*/gm), printed).toEqual([expect.stringContaining("fsync is off")]);
      return;
    }
    expect({ exit, signal }, printed).toEqual({ exit: 0, signal: null });
    expect(printed).not.toMatch(/^error:|\bundefined\b|\[object Object\]/m);
  },
);
