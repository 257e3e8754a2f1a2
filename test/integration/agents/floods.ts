import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { isLong } from "../../support/long.ts";
import { makeStateDir, settledSession, startPeer } from "../client/harness.ts";

const program = join(import.meta.dirname, "../../support/flooding-agent.mjs");

/** Peak memory of a process, in MiB. */
function peakMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) / 1024;
}

/**
 * A run of an agent that prints `bytes` between its first word and its answer, in its own daemon.
 * The memory of the daemon is measured before and after.
 */
export async function flood(type: string, what: string, bytes: number) {
  const timers = { heartbeatMs: 1_000, ttlMs: 20_000 };
  const peer = await startPeer({ capabilities: ["activity"], patienceMs: 1_190_000, ...timers });
  const stateDir = makeStateDir();
  const command = [process.execPath, program, type, what, String(bytes)];
  const config = `[executors.flood]\ntype = "${type}"\ncommand = ${JSON.stringify(command)}\n`;
  const script = join(import.meta.dirname, "../client/daemon-process.ts");
  const options = JSON.stringify({ url: peer.url, stateDir, config, isQuiet: true });
  const daemon = spawn(process.execPath, [script, options], { stdio: ["ignore", "ignore", "inherit"] });
  onTestFinished(() => {
    daemon.kill("SIGKILL");
  });
  const session = await settledSession(peer);
  const before = peakMiB(daemon.pid ?? 0);
  const assignment = session.assign({ timeoutMs: 1_200_000 });
  const completion = await session.next("complete");
  const after = peakMiB(daemon.pid ?? 0);
  if (isLong) console.error(`${type}, ${what} of ${bytes} bytes: the daemon grew by ${after - before} MiB`);
  return { peer, session, assignment, completion, grownMiB: after - before };
}

const types = ["claude-code", "codex", "acp"];

/** However much an agent prints, its answer is kept, in bounded memory. */
export function floodTests(options: { linesBytes: number; lineBytes: number; grownMiBMax: number }): void {
  test.each(types)(
    `%s: ${options.linesBytes / 2 ** 20} MiB of lines cost the daemon bounded memory, and the answer is kept`,
    { timeout: 1_200_000 },
    async (type) => {
      const { completion, grownMiB, peer } = await flood(type, "lines", options.linesBytes);
      expect(completion, completion?.reason).toMatchObject({
        ...{ outcome: Outcome.COMPLETED, resultText: "The answer, in the end." },
      });
      expect(completion?.isOutputTruncated).toBe(true);
      expect(completion?.output).toContain("novel");
      expect(completion?.output.length).toBeLessThanOrEqual(1_048_576);
      expect(Number(completion?.transcript?.omittedEntries)).toBeGreaterThan(0);
      expect(grownMiB).toBeLessThan(options.grownMiBMax);
      expect(peer.violations).toEqual([]);
    },
  );

  test.each(types)(
    `%s: a line of ${options.lineBytes / 2 ** 20} MiB is let go of, and the answer is kept`,
    { timeout: 1_200_000 },
    async (type) => {
      const { completion, grownMiB } = await flood(type, "line", options.lineBytes);
      expect(completion, completion?.reason).toMatchObject({
        ...{ outcome: Outcome.COMPLETED, resultText: "The answer, in the end." },
      });
      expect(completion?.output).toContain('{"type":"assistant","text":"zzz');
      expect(grownMiB).toBeLessThan(options.grownMiBMax);
    },
  );

  test.each(types)(
    "%s: bytes that are no text, colours, half lines and deep nesting are kept as they came, and harm nothing",
    { timeout: 60_000 },
    async (type) => {
      const { completion, peer } = await flood(type, "odd", 0);
      expect(completion, completion?.reason).toMatchObject({
        ...{ outcome: Outcome.COMPLETED, resultText: "The answer, in the end." },
      });
      expect(completion?.output).toContain("\u001b[31mred\u001b[0m and plain");
      expect(completion?.output).toContain("\ufffd");
      expect(completion?.output).toContain('{"type":"result"\n[1,2]\nnull\n"text"\n');
      if (type !== "acp") expect(completion?.output).toMatch(/\{"type":"(assis|item\.comp)\n$/);
      expect(peer.violations).toEqual([]);
    },
  );
}
