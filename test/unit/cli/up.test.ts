import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { RunSchema, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { errorLine } from "../../../src/cli/commands/up.ts";
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
