/**
 * `pinion device conformance`: daemons that keep the protocol pass, and broken daemons fail in the
 * check of their defect.
 */
import { writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { cases } from "../../../src/cli/device/conformance/cases.ts";
import type { CaseResult } from "../../../src/cli/device/conformance/verdict.ts";
import { runCommand } from "../../support/command.ts";
import { isLong } from "../../support/long.ts";
import { type Mutation, mutantDaemon } from "../../support/mutants.ts";
import { temporaryDirectory } from "../../support/processes.ts";
import { goDaemon, pythonDaemon } from "../../support/toolchains.ts";

const main = inject("pinionMain");
const path = process.env.PATH!;

type Report = { passed: number; failed: number; skipped: number; cases: CaseResult[] };

async function check(options: {
  command: string[];
  env?: Record<string, string>;
  args?: string[];
}): Promise<{ code: number; report: Report }> {
  const { code, out, err } = await runCommand(
    { PATH: path, ...options.env },
    ...["--json", "device", "conformance", "--jobs", "8", ...(options.args ?? []), "--", ...options.command],
  );
  expect(err).toBe("");
  return { code, report: JSON.parse(out) };
}

const wrongOf = ({ cases }: Report) => cases.filter(({ outcome }) => outcome !== "pass");

/** Some forty seconds of processes that start and end, more on a busy machine. */
const longMs = 240_000;

// The examples, and twenty deliberately broken daemons, take long.
test("the daemon of this repository keeps every promise", { timeout: longMs }, async () => {
  const config = join(await temporaryDirectory(), "sh.toml");
  writeFileSync(
    config,
    '[device]\nmax_concurrency = 2\n[executors.sh]\ncommand = ["sh"]\nkill_grace = "1s"\n',
  );
  const { code, report } = await check({
    command: [process.execPath, main, "device", "run", "--config", config],
  });
  expect(wrongOf(report)).toEqual([]);
  expect(report.cases.map(({ name }) => name)).toEqual(cases.map(({ name }) => name));
  expect(code).toBe(0);
});

test.skipIf(!isLong).for([["Python", pythonDaemon] as const, ["Go", goDaemon] as const])(
  "so does the example in %s",
  { timeout: longMs },
  async ([name, prepare], { skip }) => {
    const toolchain = await prepare();
    if ("missing" in toolchain) {
      console.error(`skipped, the daemon in ${name}: ${toolchain.missing}`);
      return skip(toolchain.missing);
    }
    const { report } = await check({ command: [...toolchain.command, "sh"], env: toolchain.env });
    expect(wrongOf(report)).toEqual([]);
  },
);

describe.skipIf(!isLong)("a broken daemon fails the case that is about it", () => {
  const mutants: [what: string, name: string, mutation: Mutation][] = [
    [
      "that names another installation",
      "hello",
      {
        file: "device/hello.ts",
        from: "installId: options.installId",
        to: 'installId: "another-one"',
      },
    ],
    [
      "that beats before it is welcomed",
      "waits-for-welcome",
      {
        file: "device/session/session.ts",
        from: "#connected(): void {",
        to: `#connected(): void {
          setTimeout(() => this.#stream?.write(create(ConnectRequestSchema, {
            message: { case: "heartbeat", value: { sequence: 1n } },
          })), 100);`,
      },
    ],
    [
      "that beats too rarely",
      "heartbeat-interval",
      { file: "device/session/session.ts", from: "every(heartbeatMs,", to: "every(heartbeatMs * 4," },
    ],
    [
      "that does not list what runs",
      "heartbeat-lists",
      {
        file: "device/connection.ts",
        from: "attempts: () => heartbeatList(this.#held())",
        to: "attempts: () => []",
      },
    ],
    [
      "without a watchdog",
      "silence",
      {
        file: "device/session/session.ts",
        from: "if (silentMs >= ttlMs)",
        to: "if (silentMs >= ttlMs * 1000)",
      },
    ],
    [
      "that runs a copy again",
      "duplicate",
      { file: "device/attempts/attempts.ts", from: "if (this.#isCopy(names)) {", to: "if (false) {" },
    ],
    [
      "that takes more than it said",
      "concurrency",
      { file: "device/attempts/attempts.ts", from: "this.#busy() >= this.#host.maxConcurrency", to: "false" },
    ],
    [
      "that forgets a result which it has sent",
      "resend-after-reconnect",
      {
        file: "device/results/delivery.ts",
        from: "parcel.sends += 1;",
        to: "void this.#files.remove(parcel.entry); this.#forget(parcel);",
      },
    ],
    [
      "that keeps results in memory only",
      "resend-after-kill",
      {
        file: "device/results/parcel-files.ts",
        from: "await this.#outbox.put({ completion: unsaved, finishedAtMs: entry.finishedAtMs });",
        to: "",
      },
    ],
    [
      "that sends an invalid result for ever",
      "invalid",
      {
        file: "device/results/verdicts.ts",
        from: '[CompletionVerdict.INVALID]: "invalid"',
        to: "[CompletionVerdict.INVALID]: undefined",
      },
    ],
    [
      "that cuts nothing",
      "output-limits",
      {
        file: "device/attempts/attempt-output.ts",
        from: "bytes.subarray(start, start + this.chunkBytesMax)",
        to: "bytes.subarray(start)",
      },
    ],
    [
      "that lets an aborted attempt go on",
      "verdict-abort",
      {
        file: "device/server-messages.ts",
        from: "case HeldVerdict.ABORT:\n        // A result finished since is sent all the same; its own verdict follows.\n        this.#parts.attempts.supersede(attemptToken);",
        to: "case HeldVerdict.ABORT:",
      },
    ],
    [
      "that says cancelled while the program still runs",
      "cancel",
      {
        file: "device/attempts/attempts.ts",
        from: 'this.#host.emit({ type: "cancel", ...attempt.names, reason: cancel.reason });',
        to: "this.#answers.cancelled(cancel);",
      },
    ],
    [
      "that comes back at once after a drain",
      "drain",
      {
        file: "device/session/session.ts",
        from: "reconnectAfterMs: isWakeUp ?",
        to: "reconnectAfterMs: true ?",
      },
    ],
    [
      "that comes back after it was removed",
      "revoked",
      {
        file: "device/outcome.ts",
        from: "outcome.drain === DrainReason.REVOKED",
        to: "outcome.drain === DrainReason.UNSPECIFIED",
      },
    ],
    [
      "that never takes no for an answer",
      "unauthenticated",
      { file: "device/timing.ts", from: "refusalsMax: 3", to: "refusalsMax: 1000, backoffCapMs: 100" },
    ],
    [
      "that dials again at once",
      "unavailable",
      { file: "device/outcome.ts", from: "random() * ceiling", to: "random()" },
    ],
    [
      "whose backoff starts anew with every welcome",
      "accept-and-drop",
      {
        file: "device/outcome.ts",
        from: 'case "served": {\n      const failures = outcome.heldMs >= timing.backoffResetMs ? 0 : history.failures + 1;',
        to: 'case "served": {\n      const failures = 0;',
      },
    ],
  ];
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "pinion-mutants-"));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  // They wait most of their time.
  test.concurrent.for(mutants)("one %s: %s", { timeout: 120_000 }, async ([what, name, mutation]) => {
    const command = mutantDaemon(join(directory, what.replaceAll(" ", "-")), mutation);
    const { code, report } = await check({ command, args: ["--only", name, "--patience", "5s"] });
    expect(report.cases).toMatchObject([{ name, outcome: "fail" }]);
    expect(report.cases[0]!.seen).not.toBe("");
    expect(report.cases[0]!.expected).not.toMatch(/^the daemon (starts|connects)/);
    expect(code).toBe(1);
  });
});

test("what fails is told with what was expected, what was seen, and the daemon's last words", async () => {
  const { code, out, err } = await runCommand(
    { PATH: path },
    ...["device", "conformance", "--only", "hello", "--", "sh", "-c", "echo I cannot >&2; exit 7"],
  );
  expect(code).toBe(1);
  expect(err).toBe("✗ hello\n");
  expect(out).toContain("expected: the daemon starts and connects");
  expect(out).toContain("seen:     it ended with 7");
  expect(out).toContain("| I cannot");
  expect(out).toContain("0 passed, 1 failed, 0 skipped");
});

test("mistakes at the command line are refused before anything is started", async () => {
  const conformance = (...args: string[]) => runCommand({ PATH: path }, "device", "conformance", ...args);
  expect(await conformance()).toMatchObject({ code: 2, err: expect.stringContaining("no command") });
  expect(await conformance("--only", "nonsense", "--", "true")).toMatchObject({
    code: 2,
    err: expect.stringContaining('no case "nonsense"'),
  });
  expect(await conformance("--jobs", "0", "--", "true")).toMatchObject({ code: 2 });
  const missing = await conformance("--only", "hello", "unauthenticated", "--", "no-such-daemon");
  expect(missing).toMatchObject({ code: 1, out: expect.stringContaining("ENOENT") });
  const listed = await runCommand({}, "--json", "device", "conformance", "--list");
  expect(JSON.parse(listed.out)).toHaveLength(cases.length);
});
