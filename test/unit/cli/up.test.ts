import { appendFileSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { loadConfig } from "@pinion/client";
import { expect, test } from "vitest";
import { RunSchema, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { errorLine } from "../../../src/cli/commands/up.ts";
import { writeDeviceConfigOnce } from "../../../src/cli/device/config.ts";
import { checkDeviceConfig } from "../../../src/cli/doctor/device.ts";
import { exitCodes, Failure } from "../../../src/cli/failures.ts";
import { lastError } from "../../../src/cli/up/daemon-process.ts";
import { endOf } from "../../../src/cli/up/later-runs.ts";

test("of a daemon that cannot start, the last error is told with all its lines and without its advice", () => {
  const log = [
    '{"error":"an older one","advice":"","exit_code":2}',
    '{"type":"connected","at_ms":1}',
    `${JSON.stringify({ error: "device.toml:4: Invalid TOML document\ndevice.toml:7: executors.x: no command", advice: "mend it", exit_code: 2 })}`,
    '{"error":"hal',
    "",
  ].join("\n");
  expect(lastError(log)).toBe("device.toml:4: Invalid TOML document\ndevice.toml:7: executors.x: no command");
  expect(lastError('{"type":"connected","at_ms":1}\n')).toBe("");
});

test("a later run says of which watcher it was and how it ended", () => {
  const run = { id: "r-1", watcherSlug: "daily-checkin" };
  const completed = create(RunSchema, {
    ...run,
    status: RunStatus.COMPLETED,
    duration: durationFromMs(300),
  });
  expect(endOf(completed)).toBe("daily-checkin completed in 300 ms: run r-1");
  const lost = create(RunSchema, { ...run, status: RunStatus.TIMEOUT, reason: "device lost\nmore" });
  expect(endOf(lost)).toBe("daily-checkin timeout: device lost: run r-1  (pinion runs explain r-1)");
});

test("a start that fails is a line of JSON with what to do", () => {
  const failure = new Failure(exitCodes.conflict, "port 1 is taken", "choose another");
  expect(JSON.parse(errorLine(failure))).toEqual({
    status: "error",
    error: "port 1 is taken",
    advice: "choose another",
  });
  expect(JSON.parse(errorLine(new Failure(exitCodes.failed, "x"))).advice).toBe("");
});

test("the stanzas of the README can be pasted at the end of the device.toml of `up`, with and without the agents", () => {
  const readme = readFileSync(new URL("../../../README.md", import.meta.url), "utf8");
  const stanzas = [...readme.matchAll(/```toml\n([\s\S]*?)```/g)].map(([, text]) => text!);
  expect(stanzas.length).toBeGreaterThan(0);
  for (const isInstalled of [false, true]) {
    const place = mkdtempSync(join(tmpdir(), "pinion-readme-"));
    if (isInstalled) writeFileSync(join(place, "claude"), "#!/bin/sh\n", { mode: 0o755 });
    const file = join(place, "device.toml");
    writeDeviceConfigOnce(file, { env: { PATH: place, HOME: place }, workingDir: place });
    appendFileSync(file, `\n${stanzas.join("\n")}`);
    expect(Object.keys(loadConfig(file).executors)).toContain("claude");
    expect(loadConfig(file).defaultExecutor).toBe("machine-report");
  }
});

test("the doctor names file and line of a device configuration that is wrong", () => {
  const file = join(mkdtempSync(join(tmpdir(), "pinion-doctor-")), "device.toml");
  expect(checkDeviceConfig(file, { env: {}, ofDaemon: undefined, names: [] })[0]!.verdict).toBe("absent");
  writeFileSync(file, "[device]\nmax_concurrency = = 2\n");
  expect(checkDeviceConfig(file, { env: {}, ofDaemon: undefined, names: [] })).toMatchObject([
    { verdict: "bad" },
  ]);
  expect(checkDeviceConfig(file, { env: {}, ofDaemon: undefined, names: [] })[0]!.found).toContain(
    `${file}:2: `,
  );
});
