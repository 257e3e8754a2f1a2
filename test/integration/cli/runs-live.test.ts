/** `pinion runs watch` without a run, and the completion scripts for shells. */
import pc from "picocolors";
import { expect, onTestFinished, test, vi } from "vitest";
import type { Cli } from "../../../src/cli/cli.ts";
import { type LiveFilter, watchRuns } from "../../../src/cli/commands/runs/runs-live.ts";
import { runCommand } from "../../support/command.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, type DeviceStream, enrolDevice } from "../../support/device.ts";
import { startWork, takeOn, useReplicas } from "../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "first");

/** On a busy machine too. */
const eventually = (check: () => void) => vi.waitFor(check, { timeout: 15_000, interval: 20 });

/** Watches like the command; `columns` makes the output a terminal. */
function watch(options: { asJson?: boolean; filter?: Partial<LiveFilter>; columns?: number } = {}) {
  const printed = { out: "", err: "" };
  const stop = new AbortController();
  const cli: Cli = {
    env: {},
    colors: pc.createColors(false),
    isTerminal: options.columns !== undefined,
    columns: options.columns ?? Number.POSITIVE_INFINITY,
    out: (line) => {
      printed.out += `${line}\n`;
    },
    raw: (bytes) => {
      printed.out += bytes.toString();
    },
    note: (line) => {
      printed.err += `${line}\n`;
    },
    open: new DisposableStack(),
    program: () => {},
    trust: () => {},
    outliveOutput: () => {},
    setExitCode: () => {},
  };
  const filter = { watcherId: "", deviceId: "", ...options.filter };
  const done = watchRuns(cli, replicas.first.clients, {
    filter,
    labels: new Map(),
    asJson: options.asJson === true,
    signal: stop.signal,
  });
  onTestFinished(() => stop.abort());
  const end = async () => {
    stop.abort();
    await done;
  };
  return { printed, end };
}

const say = (stream: DeviceStream, attempt: { workId: string; attemptToken: string }, text: string) =>
  stream.send({
    case: "output",
    value: {
      workId: attempt.workId,
      attemptToken: attempt.attemptToken,
      sequence: 1n,
      stream: 1,
      data: Buffer.from(text),
    },
  });

/**
 * The final screen of a terminal after escape codes that move the cursor up and clear from there.
 */
function screenOf(printed: string): string[] {
  let lines: string[] = [""];
  for (const [, up, text = ""] of printed.replaceAll("\x1b", "␛").matchAll(/␛\[(\d+)A␛\[0J|([^␛]+)/g)) {
    if (up) lines = [...lines.slice(0, lines.length - 1 - Number(up)), ""];
    const [first, ...rest] = text.split("\n");
    lines = [...lines.slice(0, -1), lines.at(-1)! + first!, ...rest];
  }
  return lines.filter((line) => line !== "");
}

async function live(view: ReturnType<typeof watch>) {
  const { clients, url } = replicas.first;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const run = await startWork(clients, device);
  await eventually(() => expect(view.printed.out).toContain(run.id));
  const assignment = await takeOn(stream);
  await eventually(() => expect(view.printed.out).toContain("running"));
  say(stream, assignment, "one\ntwo\x1b[2J\nthree");
  await eventually(() => expect(view.printed.out).toContain("two"));
  return { run, device, finish: () => stream.complete(assignment) };
}

test("runs are shown line by line as they begin, write and end, where nobody can redraw", async () => {
  const view = watch();
  await eventually(() => expect(view.printed.err).toContain("watching runs"));
  const { run, finish } = await live(view);
  await finish();
  await eventually(() => expect(view.printed.out).toMatch(/^completed/m));
  await view.end();
  const lines = view.printed.out.trimEnd().split("\n");
  expect(lines[0]).toMatch(/^(pending|claimed|running) .*work-\d+ .*/);
  expect(lines.filter((line) => line.startsWith("completed"))).toHaveLength(1);
  const output = lines.filter((line) => line.includes("│"));
  // The output of a program never moves the cursor.
  expect(output.map((line) => line.split("│ ")[1])).toEqual(["one", "two", "three"]);
  expect(lines.at(-1)).toMatch(new RegExp(`^completed .*${run.id}$`));
  expect(view.printed.out).not.toContain("\x1b");
});

test("on a terminal a run is one line that is kept up, below its output, until it ends", async () => {
  const view = watch({ columns: 100 });
  await eventually(() => expect(view.printed.err).toContain("watching runs"));
  const { run, finish } = await live(view);
  const during = screenOf(view.printed.out);
  expect(during.filter((line) => line.startsWith("●"))).toHaveLength(1);
  expect(during.at(-1)).toMatch(/^● running/);
  expect(during[0]).toMatch(/│ one$/);
  await finish();
  await eventually(() => expect(view.printed.out).toMatch(/completed/));
  await view.end();
  const after = screenOf(view.printed.out);
  expect(after.filter((line) => line.startsWith("●"))).toEqual([]);
  expect(after.at(-1)).toMatch(new RegExp(`^completed .*${run.id}$`));
  for (const line of during) expect(line.length).toBeLessThanOrEqual(100);
});

test("a program gets a line of JSON for every update, and only of what it asked for", async () => {
  const { clients, url } = replicas.first;
  const other = await enrolDevice(clients);
  const otherStream = await connect(url, other);
  const device = await enrolDevice(clients);
  const view = watch({ asJson: true, filter: { deviceId: device.deviceId } });
  const unwanted = await startWork(clients, other);
  await otherStream.complete(await takeOn(otherStream));
  const stream = await connect(url, device);
  const run = await startWork(clients, device);
  const assignment = await takeOn(stream);
  say(stream, assignment, "hi");
  await eventually(() => expect(view.printed.out).toContain('"output"'));
  await stream.complete(assignment);
  await eventually(() => expect(view.printed.out).toContain("RUN_STATUS_COMPLETED"));
  await view.end();
  const updates = view.printed.out
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(new Set(updates.map((update) => update.run_id))).toEqual(new Set([run.id]));
  expect(updates.some((update) => update.output?.data === Buffer.from("hi").toString("base64"))).toBe(true);
  expect(updates.at(-1).run).toMatchObject({ id: run.id, status: "RUN_STATUS_COMPLETED" });
  expect(view.printed.out).not.toContain(unwanted.id);
});

test("shells are offered commands, options, words and the names of what the server has", async () => {
  const { clients, url, token } = replicas.first;
  await clients.watchers.createWatcher({ slug: "sweep-floor", spec: { name: "Sweep", prompt: "p" } });
  await enrolDevice(clients, "shop floor");
  const env = { PINION_URL: url, PINION_TOKEN: token, HOME: "/nowhere", PINION_DATA: "/nowhere" };
  const complete = async (...line: string[]) => {
    const { out, code, err } = await runCommand(env, "complete", "--", ...line);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    return out.split("\n").flatMap((each) => (each ? [each.split("\t")[0]] : []));
  };
  expect(await complete("ru")).toEqual(["runs"]);
  expect(await complete("runs", "")).toEqual([
    ...["list", "get", "watch", "explain", "cancel", "retry", "replay"],
    ...["questions", "answer", "transcript", "follow-up", "search", "summary", "help"],
  ]);
  expect(await complete("runs", "list", "--st")).toEqual(["--status"]);
  expect(await complete("runs", "list", "--status", "c")).toEqual(["claimed", "completed", "cancelled"]);
  expect(await complete("watchers", "trigger", "sw")).toEqual(["sweep-floor"]);
  expect(await complete("--json", "watchers", "trigger", "--watch", "sweep")).toEqual(["sweep-floor"]);
  expect(await complete("runs", "list", "--device", "sho")).toEqual(["shop floor"]);
  expect(await complete("watchers", "trigger", "sweep-floor", "")).toEqual([]);
  expect(await complete("nothing", "")).toEqual([]);
  expect(await complete("completion", "")).toEqual(["bash", "zsh", "fish"]);
  // Without a server, completion offers no names and prints no error.
  const away = await runCommand(
    { ...env, PINION_URL: "http://127.0.0.1:1" },
    "complete",
    "--",
    "runs",
    "get",
    "",
  );
  expect(away).toEqual({ code: 0, out: "", err: "" });
});

test.each(["bash", "zsh", "fish"])(
  "there is a script for %s, and for a shell that nobody knows an error",
  async (shell) => {
    const { out, code } = await runCommand({}, "completion", shell);
    expect(code).toBe(0);
    expect(out).toContain("complete --");
    expect(out).not.toContain("undefined");
    expect(await runCommand({}, "completion", "tcsh")).toMatchObject({ code: 2 });
  },
);
