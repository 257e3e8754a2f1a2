import { appendFileSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type DaemonEvent, parseConfig } from "@pinion/client";
import { expect, test } from "vitest";
import { deviceConfig } from "../../../src/cli/device/config.ts";
import { eventRecord } from "../../../src/cli/device/lines.ts";
import { parseEvent } from "../../../src/cli/device/log.ts";
import { tailLines } from "../../../src/cli/device/log-tail.ts";

test("a fresh machine runs a local report by default, also when agents are installed", () => {
  const bin = mkdtempSync(join(tmpdir(), "pinion-path-"));
  writeFileSync(join(bin, "claude"), "", { mode: 0o755 });
  const config = parseConfig(deviceConfig({ env: { PATH: bin }, workingDir: '/a "quoted" place' }));
  expect(config.defaultExecutor).toBe("machine-report");
  expect(Object.keys(config.executors)).toEqual(["machine-report", "claude-code"]);
  expect(config.executors["claude-code"]).toMatchObject({
    type: "claude-code",
    command: [join(bin, "claude")],
  });
  expect(config.executors["machine-report"]?.cwd).toBe('/a "quoted" place');
});

test("what is not installed stands there as a comment, and README's stanza can be pasted below it", () => {
  const text = deviceConfig({ env: { PATH: "" }, workingDir: "/work" });
  expect(text).toContain("# [executors.claude-code]\n");
  const readme = readFileSync(join(import.meta.dirname, "../../../README.md"), "utf8");
  const snippet = /```toml\n(.*?)```/s.exec(readme)?.[1] ?? "";
  expect(parseConfig(`${text}${snippet}`).executors.claude).toMatchObject({
    type: "claude-code",
    command: ["claude"],
  });
  const all = mkdtempSync(join(tmpdir(), "pinion-path-"));
  for (const name of ["claude", "codex", "codex-acp", "gemini"])
    writeFileSync(join(all, name), "", { mode: 0o755 });
  const found = deviceConfig({ env: { PATH: all }, workingDir: "/work" });
  expect(Object.keys(parseConfig(`${found}${snippet}`).executors)).toEqual([
    ...["machine-report", "claude-code", "codex", "codex-acp", "gemini", "claude"],
  ]);
  expect(parseConfig(found).executors.gemini?.command).toEqual([join(all, "gemini"), "--acp"]);
});

test("an event in the log shows neither the attempt's token nor what the program printed", () => {
  const event: DaemonEvent = {
    type: "finished",
    atMs: 1_000.5,
    workId: "r",
    attemptToken: "secret-token",
    watcher: "w",
    durationMs: 3,
    result: {
      outcome: "completed",
      output: "secret output",
      resultText: "secret",
      stderrTail: "secret",
      exitCode: 0,
    },
  };
  const line = JSON.stringify(eventRecord(event));
  expect(line).not.toContain("secret");
  expect(parseEvent(line)).toMatchObject({ type: "finished", at_ms: 1_000.5, work_id: "r", duration_ms: 3 });
});

test("lines that the daemon's logger wrote are no events", () => {
  expect(parseEvent('{"level":30,"msg":"hello"}')).toBeUndefined();
  expect(parseEvent("Error: no JSON at all")).toBeUndefined();
  expect(parseEvent("null")).toBeUndefined();
});

test("a growing file is read line by line, from where it was asked for", { timeout: 5_000 }, async () => {
  const path = join(mkdtempSync(join(tmpdir(), "pinion-tail-")), "log");
  writeFileSync(path, "old\n");
  const stop = new AbortController();
  const lines = tailLines(path, { fromByte: 4, signal: stop.signal });
  appendFileSync(path, "one\ntw");
  expect((await lines.next()).value).toBe("one");
  const second = lines.next();
  appendFileSync(path, "o ü\n");
  expect((await second).value).toBe("two ü");
  const end = lines.next();
  stop.abort();
  expect((await end).done).toBe(true);
});
