/**
 * The first minutes of a newcomer, by real processes in empty homes, each step timed:
 *
 *   checkout   clone, `npm ci` and `npm start` with the machine's Node, until a result is stored
 *   binary     the one-file `pinion`, with no Node on the PATH, until a result is stored
 *   second     another account (as root; otherwise the same account in another home) types the line
 *              of `pinion devices join-code`, until its device is connected and has completed a run
 *
 * `npm run newcomer [-- --json --executables DIR --only checkout --keep]`. Ends with 1 if a step
 * took longer than its limit. Linux, with git, npm, curl and gzip; the checkout trial asks npm's
 * registry.
 */
import { execFile } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { cpus, loadavg, tmpdir, totalmem } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { parseArgs, promisify } from "node:util";
import { makeProcessorTime, type ProcessorTime, processorSecondsOf } from "./lib/processor-time.ts";
import { root } from "./lib/proto.ts";
import { type Account, started, thenStopped, typed, untilPrinted } from "./lib/typed.ts";

const run = promisify(execFile);
const system = `${process.platform}-${process.arch}`;
/** The limits of the first result after the download, and of the second device, in seconds. */
const firstResultMax = 10;
const secondDeviceMax = 30;
/** The limit of `pinion --help` in seconds of processor time. */
const helpMax = 0.15;
const nobody = 65_534;

/**
 * `processor`: seconds of processor time of all processes of the account, where it can be counted.
 */
type Step = { trial: string; step: string; seconds: number; processor?: number; limit?: number };

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    executables: { type: "string" },
    only: { type: "string", multiple: true, default: ["checkout", "binary"] },
    keep: { type: "boolean", default: false },
  },
});

const place = mkdtempSync(join(tmpdir(), "pinion-newcomer-"));
// Other accounts pass through it.
chmodSync(place, 0o755);
const steps: Step[] = [];
const groups: ProcessorTime[] = [];

/** Begins to measure; the returned function gives the times since then. */
function measure({ processor }: Account): () => Pick<Step, "seconds" | "processor"> {
  const [began, used] = [performance.now(), processor?.seconds() ?? 0];
  return () => ({
    seconds: (performance.now() - began) / 1000,
    ...(processor ? { processor: processor.seconds() - used } : {}),
  });
}

async function timed<T>(
  who: Account,
  step: Omit<Step, "seconds" | "processor">,
  act: () => Promise<T>,
): Promise<T> {
  const since = measure(who);
  const made = await act();
  record({ ...step, ...since() });
  return made;
}

function record(step: Step): void {
  steps.push(step);
  console.error(`${step.trial}: ${step.step}: ${step.seconds.toFixed(2)} s`);
}

/** An empty home of an account, with a PATH of its own. */
function account(name: string, path: string, uid?: number): Account {
  const home = join(place, name);
  mkdirSync(home);
  if (uid !== undefined) chownSync(home, uid, uid);
  const env = { HOME: home, PATH: path, LANG: "C.UTF-8", PINION_PORT: "0" };
  const processor = makeProcessorTime(`newcomer-${name}`, uid);
  if (processor) groups.push(processor);
  return { home, uid, env, processor };
}

/** The PATH of this process without the folders of npm scripts, which hold a newer Node. */
function ownPath(): string {
  const folders = (process.env.PATH ?? "").split(delimiter);
  return folders.filter((folder) => !/node_modules|node-gyp-bin/.test(folder)).join(delimiter);
}

/** A folder with every program of the system but Node. */
function pathWithoutNode(): string {
  const folder = join(place, "bin");
  mkdirSync(folder);
  for (const from of ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].filter(existsSync)) {
    for (const name of readdirSync(from)) {
      if (/^(node|nodejs|npm|npx|corepack)$/.test(name) || existsSync(join(folder, name))) continue;
      symlinkSync(join(from, name), join(folder, name));
    }
  }
  return folder;
}

async function checkout(): Promise<void> {
  const who = account("checkout", ownPath());
  // npm's registry and credentials stay those of this machine.
  who.env.NPM_CONFIG_USERCONFIG =
    process.env.NPM_CONFIG_USERCONFIG ?? join(process.env.HOME ?? "/", ".npmrc");
  const node = (await typed(who, "node --version")).trim();
  const trial = `checkout, Node ${node.slice(1)}`;
  await timed(who, { trial, step: "git clone (from this disk)" }, () =>
    typed(who, `git clone -q --no-hardlinks 'file://${root}' pinion`),
  );
  const folder = join(who.home, "pinion");
  await timed(who, { trial, step: "npm ci" }, () => typed(who, "npm ci --no-audit --no-fund", folder));
  const up = started(who, "exec npm start", folder);
  await thenStopped(up, () =>
    timed(who, { trial, step: "npm start, until the first result is stored", limit: firstResultMax }, () =>
      untilPrinted(up, / stored +window /),
    ),
  );
}

async function binary(): Promise<void> {
  const downloads = values.executables ? resolve(values.executables) : await built();
  const path = pathWithoutNode();
  const who = account("binary", path);
  const trial = "one file, no Node";
  if ((await typed(who, "command -v node npm || echo none")).trim() !== "none")
    throw new Error("a Node is there");
  await timed(who, { trial, step: "gunzip, chmod +x" }, () =>
    typed(who, `gunzip -c '${downloads}/pinion-${system}.gz' > pinion && chmod +x pinion`),
  );
  const program = join(who.home, "pinion");
  record({
    trial,
    step: "pinion --help, processor time",
    seconds: processorSecondsOf([program, "--help"], who.env),
    limit: helpMax,
  });
  who.env.PINION_DOWNLOADS = downloads;
  const up = started(who, `exec '${program}' up`);
  await thenStopped(up, async () => {
    const text = await timed(
      who,
      { trial, step: "pinion up, until the first result is stored", limit: firstResultMax },
      () => untilPrinted(up, / stored +window /),
    );
    const url = /http:\/\/127\.0\.0\.1:\d+/.exec(text)![0];
    await second(`'${program}' --data '${who.home}/.pinion'`, who, url, path);
  });
}

/** The other laptop: an account without Node, with the line that the first account prints. */
async function second(pinion: string, first: Account, url: string, path: string): Promise<void> {
  const uid = process.getuid?.() === 0 ? nobody : undefined;
  const who = account("second", path, uid);
  const trial = uid === undefined ? "second home, no Node" : "second account, no Node";
  const { join_code: code } = JSON.parse(await typed(first, `${pinion} devices join-code --json`));
  const label = "other-laptop";
  const since = measure(who);
  const sinceLine = (step: string, limit?: number) =>
    record({ trial, step, ...since(), ...(limit ? { limit } : {}) });
  // The limit counts from the press of Enter; no systemd answers in the empty home.
  const installed = await typed(
    who,
    `curl -fsS ${url}/install.sh | sh -s -- ${code} --label ${label} --start`,
  );
  const daemon = Number(/process (\d+)/.exec(installed)?.[1]);
  try {
    sinceLine("install.sh: downloaded, checked, enrolled, started");
    await untilOnline(first, pinion, label);
    sinceLine("its device is connected", secondDeviceMax);
    await typed(first, `${pinion} watchers create second --prompt report --device ${label}`);
    await typed(first, `${pinion} watchers trigger second --watch`);
    sinceLine("its first run is stored", secondDeviceMax);
  } finally {
    if (daemon > 0) process.kill(daemon, "SIGTERM");
  }
}

async function untilOnline(who: Account, pinion: string, label: string): Promise<void> {
  for (;;) {
    const { devices } = JSON.parse(await typed(who, `${pinion} devices list --json`)) as {
      devices: { label: string; liveness: string }[];
    };
    if (devices.some((one) => one.label === label && one.liveness === "LIVENESS_ONLINE")) return;
  }
}

async function built(): Promise<string> {
  const out = join(place, "downloads");
  const build = join(root, "scripts/build-executables.ts");
  await run(process.execPath, [build, "--system", system, "--quick", "--out", out], { cwd: root });
  return out;
}

try {
  if (values.only.includes("checkout")) await checkout();
  if (values.only.includes("binary")) await binary();
} finally {
  if (!values.keep) rmSync(place, { recursive: true, force: true });
}

for (const group of groups) group.remove();

const machine = `${cpus().length} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 1024 ** 3)} GiB, load ${loadavg()[0]!.toFixed(1)}`;
if (values.json) console.log(JSON.stringify({ machine, steps }));
else {
  console.log(`${machine}\n\n| trial | step | seconds | of a processor | at most |\n|---|---|---|---|---|`);
  for (const { trial, step, seconds, processor, limit } of steps) {
    console.log(
      `| ${trial} | ${step} | ${seconds.toFixed(2)} | ${processor?.toFixed(2) ?? "–"} | ${limit ?? ""} |`,
    );
  }
}
if (steps.some(({ seconds, limit }) => limit !== undefined && seconds > limit)) process.exitCode = 1;
